"""CP kernels: the covering exponent that is loose, and a dimension that has exceptions."""

import math
from collections.abc import Sequence

from krratio.theory.counts.values import Counts, size, sizes

__all__ = ["cp", "cp_dimension", "expected_cp_dimension"]


def cp(*, l: Sequence[int], R: int, K: int, P: int) -> Counts:
    """CP kernels of rank R, expanded to K channels: 1x1 -> depthwise -> 1x1.

    Parameters
    ----------
    l
        Kernel modes as CP sees them: (C, prod l_j) where one depthwise layer merges the spatial
        modes, (C, l_1, ..., l_N) where there is one depthwise layer per mode.
    R, K
        Rank, and the channels it is expanded to.
    P
        Positions times outputs.

    Notes
    -----
    Naive R (sum l_j + K) + K P. Covering k R^N + R sum l_j + k P with k = min(K, R, P), N kernel
    modes: CP as a Tucker tensor with a full core (Rauhut, Schneider and Stojanac 2017); loose,
    since a CP core is diagonal. ``folded`` counts the factors only; that so few suffice is Zhang
    and Kileel (arXiv 2311.05116). For K < R the position factor has rank K: W is a CP tensor with
    last mode K, times K positions vectors (derived).
    """
    modes, R, K, P = sizes("l", l), size("R", R), size("K", K), size("P", P)
    L, k = math.prod(modes), min(K, R, P)
    folded, intrinsic = R * (sum(modes) + P), cp_dimension((*modes, P), R)
    if k < min(R, P):  # the position factor, P x R, has rank K
        folded = R * (sum(modes) + k) + k * P
        intrinsic = min(cp_dimension((*modes, k), R) + k * (P - k), L * P)
    return Counts(
        naive=R * (sum(modes) + K) + K * P,
        covering=k * R ** len(modes) + R * sum(modes) + k * P,
        folded=folded,
        intrinsic=intrinsic,
        ambient=L * P,
        format="cp",
    )


def expected_cp_dimension(modes: Sequence[int], rank: int) -> int:
    """Parameters less scalings, at most all: min{R (sum n_j - N + 1), prod n_j} for N modes."""
    n = sizes("modes", modes)
    return min(rank * (sum(n) - len(n) + 1), math.prod(n))


def cp_dimension(modes: Sequence[int], rank: int) -> int:
    """Dimension of the closure of the tensors of CP rank at most R.

    Parameters
    ----------
    modes
        Sizes of all modes.
    rank
        R.

    Notes
    -----
    The expected one, except where Abo, Ottaviani and Peterson (2009) know a defect. *Unbalanced*:
    the largest mode n exceeds L' - sum (n_j - 1), L' the product of the others, and R lies between
    the two bounds; the class is then the matrices L' x n of rank R. *Sporadic*: (3, m, m), m odd,
    R = (3m - 1)/2; (3, 4, 4), R = 5; (2, 2, m, m), R = 2m - 1: one less. Their conjecture says that
    these are all; it is proved for R <= 6 and for many more, and searched in chapter 05.
    """
    n, rank = tuple(sorted(m for m in sizes("modes", modes) if m > 1)), size("rank", rank)
    if len(n) < 2:
        return math.prod(n)
    if len(n) == 2:
        r = min(rank, *n)
        return r * (sum(n) - r)
    largest, others = n[-1], math.prod(n[:-1])
    bound = others - sum(m - 1 for m in n[:-1])
    if bound < rank < min(others, largest):
        return rank * (others + largest - rank)
    if rank >= others and largest >= others:
        return others * largest
    return expected_cp_dimension(n, rank) - ((n, rank) in _sporadic(n))


def _sporadic(n: tuple[int, ...]) -> set[tuple[tuple[int, ...], int]]:
    m = n[-1]
    found = {((3, 4, 4), 5), ((2, 2, m, m), 2 * m - 1)}
    if m % 2:
        found.add(((3, m, m), (3 * m - 1) // 2))
    return found
