"""A systematic search for CP formats whose dimension is not the expected one."""

import itertools
import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from krratio.theory.counts import cp_dimension, expected_cp_dimension
from krratio.theory.modular.field import Field, draw_prime

__all__ = ["cp_jacobian", "search", "small_formats"]


def small_formats(largest: dict[int, int]) -> list[tuple[int, ...]]:
    """Formats n_1 <= ... <= n_N, from 2 to the largest mode given for each number of modes N."""
    return [
        modes
        for count, top in largest.items()
        for modes in itertools.combinations_with_replacement(range(2, top + 1), count)
    ]


def search(formats: Iterable[tuple[int, ...]], *, seed: int) -> pd.DataFrame:
    """Exact dimension of the tensors of CP rank R, for every R until the class fills its space.

    Parameters
    ----------
    formats
        Tuples of mode sizes.
    seed
        Draws points and primes.

    Returns
    -------
    DataFrame
        ``format``, ``rank``, ``expected`` (:func:`expected_cp_dimension`), ``tabulated``
        (:func:`cp_dimension`), ``exact`` (rank modulo a random prime at a random point).
    """
    rows = []
    for modes in formats:
        for rank in range(1, math.prod(modes) + 1):
            generator = np.random.default_rng(np.random.SeedSequence([seed, *modes, rank]))
            field = Field(draw_prime(generator))
            exact = field.rank(cp_jacobian(modes, rank, field, generator))
            rows.append(
                {
                    "format": "x".join(map(str, modes)),
                    "rank": rank,
                    "expected": expected_cp_dimension(modes, rank),
                    "tabulated": cp_dimension(modes, rank),
                    "exact": exact,
                }
            )
            if exact == math.prod(modes):
                break
    return pd.DataFrame(rows)


def cp_jacobian(
    modes: tuple[int, ...], rank: int, field: Field, generator: np.random.Generator
) -> Int[Tensor, "parameters entries"]:
    """Jacobian of factors -> tensor: each row replaces one factor column by a unit vector."""
    factors = [field.random(generator, rank, n) for n in modes]
    blocks = []
    for j, n in enumerate(modes):
        whole = torch.ones(rank, 1, dtype=torch.int64)
        for i, factor in enumerate(factors):
            if i == j:
                unit = torch.eye(n, dtype=torch.int64)
                whole = (whole[..., None, :, None] * unit[:, None, :]).flatten(-2)
            else:
                other = factor.reshape(rank, *[1] * (whole.ndim - 2), 1, -1)
                whole = field.multiply(whole[..., None], other).flatten(-2)
        blocks.append(whole.reshape(rank * n, -1))
    return torch.cat(blocks)
