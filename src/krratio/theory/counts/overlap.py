"""Overlapping windows: the dimension of conv -> pool -> FC as a function of the image.

For one channel and one mode, kernels and position weights are polynomials, the latter in powers of
the step between windows, and W_X is their product, summed over channels. Two things are lost where
windows overlap: relations between the position weights (syzygies), and features that are the same.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch

from krratio.theory.counts.values import size, sizes
from krratio.theory.modular.field import Field, draw_prime

__all__ = ["distinct_features", "overlap_dimension", "syzygies"]


def overlap_dimension(
    *, C: int, l: Sequence[int], K: int, p: Sequence[int], step: Sequence[int], T: int
) -> int:
    """Dimension of {W_X} of conv -> average pooling -> FC: the overlap law.

    Parameters
    ----------
    C, l
        Input channels and spatial kernel sizes.
    K, T
        Kernels and outputs.
    p, step
        Positions along each mode, and input elements from one pooled window to the next
        (stride times pooling step).

    Returns
    -------
    int
        min{T C prod_j f_j, r (L + P T - r) - C z}: r = min(K, L, P T), f_j distinct features along
        mode j (:func:`distinct_features`), z syzygies of r channels (:func:`syzygies`).

    Notes
    -----
    Derived in chapter 05, where the upper bound is proved: features that are the same make the
    first term, and the kernel of the Jacobian holds the gauge and, independently of it, C z
    relations. That it is attained is observed on every format tried, and certified for many; for
    T = 1 and K = 2, z = prod_j (l_j - (p_j - 1) step_j)_+.
    """
    L, P = size("C", C) * math.prod(sizes("l", l)), math.prod(sizes("p", p))
    r = min(size("K", K), L, P * size("T", T))
    free = r * (L + P * T - r) - C * syzygies(l, p, step, r, T)
    return min(T * C * distinct_features(l, p, step), free)


def distinct_features(l: Sequence[int], p: Sequence[int], step: Sequence[int]) -> int:
    """Distinct pooled features of one channel: values h + b step_j that differ, in all modes."""
    along = zip(sizes("l", l), sizes("p", p), sizes("step", step), strict=True)
    return math.prod(len({h + b * s for h in range(n) for b in range(m)}) for n, m, s in along)


def syzygies(
    l: Sequence[int], p: Sequence[int], step: Sequence[int], K: int, T: int, *, seed: int = 0
) -> int:
    """Dimension of {(a_k): sum_k a_k B_kt = 0 for all t}, a_k of size l, at generic B.

    Exact modulo a random prime, as the corank of the linear map a -> (sum_k a_k B_kt)_t.

    Parameters
    ----------
    l, p, step
        Kernel sizes, positions and steps of each mode.
    K, T
        Channels and outputs.
    seed
        Draws B and the prime.
    """
    if all(s >= n for n, s in zip(l, step, strict=True)) and T * math.prod(p) >= K:
        return 0  # windows side by side: the products of different offsets do not meet
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    field = Field(draw_prime(generator))
    weights = field.random(generator, K, T, *p)
    whole = [n + (m - 1) * s for n, m, s in zip(l, p, step, strict=True)]
    rows = torch.zeros(K, math.prod(l), T, *whole, dtype=torch.int64)
    for i, offset in enumerate(itertools.product(*map(range, l))):
        place = rows[:, i]
        for j, (h, m, s) in enumerate(zip(offset, p, step, strict=True)):
            place = place.narrow(j + 2, h, (m - 1) * s + 1)
            place = place[(slice(None),) * (j + 2) + (slice(None, None, s),)]
        place.copy_(weights)
    return K * math.prod(l) - field.rank(rows.flatten(2).flatten(0, 1))
