"""Plain, Tucker and tensor-train networks: three counts each, from integers."""

import math
from collections.abc import Sequence

from krratio.theory.counts.ranks import tt_ranks, tucker_ranks
from krratio.theory.counts.values import Counts, size, sizes

__all__ = ["cnn", "tt", "tucker"]


def cnn(*, l: Sequence[int], K: int, P: int) -> Counts:
    """Plain CNN: W = sum_k A_k o B_k, an L x P matrix of rank r = min(K, L, P).

    Parameters
    ----------
    l
        Kernel modes (C, l_1, ..., l_N); L is their product.
    K
        Kernels.
    P
        Positions times outputs.

    Notes
    -----
    Covering exponent r (L + P + 1): Candès and Plan (2011), Lemma 3.1, which nets both singular
    bases and the r singular values. Dimension r (L + P - r): the manifold of rank-r matrices.
    """
    L, K, P = math.prod(sizes("l", l)), size("K", K), size("P", P)
    r = min(K, L, P)
    return Counts(
        naive=K * (L + P),
        covering=r * (L + P + 1),
        folded=r * (L + P),
        intrinsic=r * (L + P - r),
        ambient=L * P,
        format="cnn",
    )


def tucker(
    *,
    l: Sequence[int],
    R_j: Sequence[int | None],
    R: int,
    K: int,
    P: int,
) -> Counts:
    """Tucker kernels, K channels out of a bottleneck of R: 1x1 -> spatial -> 1x1 and the like.

    Parameters
    ----------
    l
        Kernel modes (C, l_1, ..., l_N).
    R_j
        Rank of each kernel mode; None where it is not compressed: it then has no factor, hence no
        term l_j R_j.
    R, K
        Bottleneck channels and the channels they are expanded to.
    P
        Positions times outputs.

    Raises
    ------
    ValueError
        If a number is not positive, or the lengths differ.

    Notes
    -----
    Naive R prod R_j + sum l_j R_j + K R + K P. Covering R prod R_j + sum l_j R_j + R P: Rauhut,
    Schneider and Stojanac (2017), Lemma 2, after the fold of K. Dimension: Koch and Lubich (2010).
    The last two at effective ranks (:func:`krratio.theory.counts.tucker_ranks`).
    """
    kernel, R, K, P = sizes("l", l), size("R", R), size("K", K), size("P", P)
    if len(R_j) != len(kernel):
        raise ValueError(f"R_j={R_j!r} has {len(R_j)} ranks for {len(kernel)} kernel modes.")
    given = [n if r is None else size("R_j", r) for n, r in zip(kernel, R_j, strict=True)]
    factors = sum(n * r for n, r, q in zip(kernel, given, R_j, strict=True) if q is not None)
    *ranks, r = tucker_ranks((*kernel, P), (*given, min(K, R)))
    core = math.prod(ranks)
    reduced = core * r + sum(n * k for n, k in zip(kernel, ranks, strict=True) if k < n) + r * P
    # An uncompressed mode may stay in the core even where its rank is smaller than it is.
    whole = [n if q is None else k for n, k, q in zip(kernel, ranks, R_j, strict=True)]
    factors_left = sum(n * k for n, k in zip(kernel, whole, strict=True) if k < n)
    folded = min(reduced, math.prod(whole) * r + factors_left + r * P)
    tangent = sum(k * (n - k) for n, k in zip(kernel, ranks, strict=True))
    return Counts(
        naive=R * math.prod(given) + factors + K * R + K * P,
        covering=folded,
        folded=folded,
        intrinsic=core * r + tangent + r * (P - r),
        ambient=math.prod(kernel) * P,
        format="tucker",
    )


def tt(*, n: Sequence[int], r: Sequence[int]) -> Counts:
    """Deep linear CNN as a tensor train: conv -> pool -> conv -> ... -> FC.

    Parameters
    ----------
    n
        Modes (C prod l^1, prod l^2, ..., P).
    r
        Bonds, the channel counts (K_1, ..., K_h).

    Notes
    -----
    Naive and covering sum r_(i-1) n_i r_i, the second at effective bonds. Dimension: that less
    sum r_i^2, Holtz, Rohwedder and Schneider (2012), Theorem 13.
    """
    modes, bonds = sizes("n", n), sizes("r", r) if len(r) else ()
    if len(modes) != len(bonds) + 1:
        raise ValueError(f"n={n!r} and r={r!r}: one bond between each two modes is needed.")
    effective = tt_ranks(modes, bonds)
    folded = _cores(modes, effective)
    return Counts(
        naive=_cores(modes, bonds),
        covering=folded,
        folded=folded,
        intrinsic=folded - sum(k * k for k in effective),
        ambient=math.prod(modes),
        format="tt",
    )


def _cores(modes: tuple[int, ...], bonds: tuple[int, ...]) -> int:
    ends = (1, *bonds, 1)
    return sum(ends[i] * n * ends[i + 1] for i, n in enumerate(modes))
