"""Lower bounds that hold for every estimator: freeze all factors but one.

What is left is a linear space of dimension m inside the class. On it no estimator has a smaller
worst-case mean square error than least squares, m sigma^2 / n (Gaussian noise, design of rank m on
the space; Lehmann and Casella 1998, chapter 5). Exact and for every n, but a statement on the
supremum over the class, not on one W*. As n grows the supremum over shrinking neighbourhoods of a
smooth point is d sigma^2 / n: local asymptotic minimax (Hájek 1972), d the intrinsic dimension.
"""

import math
from collections.abc import Sequence

from krratio.theory.counts.ranks import tt_ranks, tucker_ranks
from krratio.theory.counts.values import size, sizes

__all__ = ["frozen_cp", "frozen_matrix", "frozen_tt", "frozen_tucker"]


def frozen_matrix(*, L: int, K: int, P: int) -> int:
    """Dimension of the largest linear space in the L x P matrices of rank at most r = min(K, L, P).

    r max(L, P): kernels or position weights frozen. No linear space of such matrices is larger
    (Flanders 1962).
    """
    L, P = size("L", L), size("P", P)
    return min(size("K", K), L, P) * max(L, P)


def frozen_tucker(*, modes: Sequence[int], ranks: Sequence[int]) -> int:
    """Largest of core size and n_j r_j over all modes, at effective ranks.

    Parameters
    ----------
    modes, ranks
        Of the whole tensor, the last mode being the positions.
    """
    n, r = sizes("modes", modes), sizes("ranks", ranks)
    _check_length("ranks", len(r), len(n))
    r = tucker_ranks(n, r)
    return max(math.prod(r), *(a * b for a, b in zip(n, r, strict=True)))


def frozen_cp(*, modes: Sequence[int], rank: int) -> int:
    """Largest n_j min(R, product of the other modes): the terms of one factor."""
    n, R = sizes("modes", modes), size("rank", rank)
    whole = math.prod(n)
    return max(m * min(R, whole // m) for m in n)


def frozen_tt(*, modes: Sequence[int], bonds: Sequence[int]) -> int:
    """Largest core r_(i-1) n_i r_i, at effective bonds."""
    n = sizes("modes", modes)
    _check_length("bonds", len(bonds), len(n) - 1)
    ends = (1, *tt_ranks(n, sizes("bonds", bonds) if len(bonds) else ()), 1)
    return max(ends[i] * m * ends[i + 1] for i, m in enumerate(n))


def _check_length(name: str, given: int, needed: int) -> None:
    if given != needed:
        raise ValueError(f"{given} {name} for these modes: {needed} are needed.")
