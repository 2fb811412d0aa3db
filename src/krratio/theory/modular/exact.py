"""The rank of the Jacobian modulo a prime, with the bounds that make it a theorem."""

import flint
import numpy as np
import torch

from krratio.networks.graph import Graph
from krratio.theory.modular.certificate import Certificate, degree_and_bits
from krratio.theory.modular.field import Field, draw_prime
from krratio.theory.modular.known import Known, known_kernel
from krratio.theory.modular.sketch import random_point, sketch

__all__ = ["exact_rank"]


def exact_rank(
    graph: Graph, own: set[int], *, bias: bool, seed: int, max_bytes: int
) -> tuple[Certificate, int]:
    """Rank of theta -> function modulo a random prime at a random point.

    Parameters
    ----------
    graph
        The network, its weights by reference.
    own
        Ids of the weights that vary.
    bias
        Whether constants belong to the function.
    seed
        Draws prime, point and functionals.
    max_bytes
        Limit on the matrix.

    Returns
    -------
    certificate : Certificate
        ``lower`` is the rank.
    parameters : int
        Number of parameters that vary and reach the function.

    Raises
    ------
    MemoryLimitError
        The matrix would be larger than the limit.
    """
    flint.ctx.threads = torch.get_num_threads()
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    field = Field(draw_prime(generator))
    point = random_point(graph, own, field, generator, bias=bias)
    known = known_kernel(point, bias=bias, max_bytes=max_bytes)
    matrix = sketch(point, _without(known), known.upper, generator, bias=bias)
    rank = field.rank(matrix)
    degree, bits = degree_and_bits(graph)
    certificate = Certificate(
        prime=field.prime,
        rows=known.upper,
        columns=known.free,
        degree=degree,
        lower=rank,
        upper=known.upper,
        reasons=known.reasons,
        generic=known.generic,
        failure_probability=Certificate.failure(rank, degree, bits, field.prime),
    )
    return certificate, known.parameters


def _without(known: Known) -> dict[int, torch.Tensor]:
    """For each owner the flat indices that are left."""
    left = torch.ones(known.folded, dtype=torch.bool)
    left[known.pivots] = False
    parts = left.split([len(slot.kept) for slot in known.slots.values()])
    return {o: slot.kept[part] for (o, slot), part in zip(known.slots.items(), parts, strict=True)}
