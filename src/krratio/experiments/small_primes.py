"""How often a rank is lost modulo a small prime, beside the Schwartz-Zippel bound."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from krratio.networks.layers import Shape
from krratio.networks.trace import trace
from krratio.theory.dimension import intrinsic_dimension
from krratio.theory.modular.certificate import degree_and_bits
from krratio.theory.modular.field import Field
from krratio.theory.modular.sketch import random_point, sketch
from krratio.theory.own import own_parameters

__all__ = ["lost_ranks"]


def lost_ranks(
    model: nn.Module, input_shape: Shape, primes: Sequence[int], *, draws: int, seed: int
) -> pd.DataFrame:
    """Share of random points and functionals at which the rank modulo p is below the dimension.

    Parameters
    ----------
    model, input_shape
        A network; its divisors must not be multiples of the primes.
    primes
        Small enough for a loss to be seen.
    draws
        Points per prime.
    seed
        Draws them.

    Returns
    -------
    DataFrame
        ``prime``, ``share`` of draws with a smaller rank, ``bound`` = rank * degree / prime, the
        degree of a minor of the sketched Jacobian over p (Schwartz 1980, Zippel 1979).
    """
    graph = trace(model, input_shape)
    own = own_parameters(model, graph)
    dimension = int(intrinsic_dimension(model, input_shape, seed=seed))
    degree, _ = degree_and_bits(graph)
    rows = []
    for prime in primes:
        field, lost = Field(prime), 0
        for draw in range(draws):
            generator = np.random.default_rng(np.random.SeedSequence([seed, prime, draw]))
            point = random_point(graph, own, field, generator, bias=False)
            kept = {owner: torch.arange(size) for owner, size in point.sizes.items()}
            matrix = sketch(point, kept, dimension, generator, bias=False)
            lost += field.rank(matrix) < dimension
        rows.append(
            {"prime": prime, "share": lost / draws, "bound": min(1.0, dimension * degree / prime)}
        )
    return pd.DataFrame(rows)
