"""The rank of the Jacobian modulo a prime, with the bounds that make it a theorem."""

import math
from dataclasses import replace

import flint
import numpy as np
import torch

from krratio.errors import MemoryLimitError
from krratio.networks.graph import Graph
from krratio.networks.layers import AveragePool, Conv, Linear
from krratio.theory.modular.certificate import Certificate, degree_and_bits
from krratio.theory.modular.channels import Channels, channels
from krratio.theory.modular.field import Field, draw_prime
from krratio.theory.modular.gauge import Change, edges, even, gauge_fields, shift_fields
from krratio.theory.modular.overlap import overlap_fields
from krratio.theory.modular.reach import spans
from krratio.theory.modular.sketch import Point, random_point, sketch
from krratio.theory.modular.slots import Slot, slots

__all__ = ["exact_rank"]

_BYTES_PER_ENTRY = 24
"""A residue as int64, in flint, and in the list between the two."""


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
    axes = channels(point.graph)
    found = spans(point.graph, axes, field, bias=bias)
    chosen = slots(point, axes, found)
    parameters = sum(point.sizes.values())
    columns = sum(len(slot.kept) for slot in chosen.values())
    _check_size(columns, max_bytes)
    pivots, gauge = _pivots(point, axes, chosen, bias=bias)
    ambient = math.prod(graph.output_shape) * (math.prod(graph.input_shape) + bias)
    free = columns - len(pivots)
    uniform = int(min(free, _uniform_bound(point, axes))) if bias else free
    upper = min(uniform, ambient)
    kept = _without(chosen, pivots)
    matrix = sketch(point, kept, upper, generator, bias=bias)
    rank = field.rank(matrix)
    degree, bits = degree_and_bits(graph)
    certificate = Certificate(
        prime=field.prime,
        rows=upper,
        columns=free,
        degree=degree,
        lower=rank,
        upper=upper,
        reasons=(
            ("slack", parameters - columns),
            ("gauge", gauge),
            ("overlap", len(pivots) - gauge),
            ("offsets", free - uniform),
            ("ambient", uniform - upper),
        ),
        generic=found.spanner.generic,
        failure_probability=Certificate.failure(rank, degree, bits, field.prime),
    )
    return certificate, parameters


def _check_size(columns: int, max_bytes: int) -> None:
    size = _BYTES_PER_ENTRY * columns**2
    if size > max_bytes:
        raise MemoryLimitError(
            f"the Jacobian with {columns:,} columns takes up to {size:,} bytes, above max_bytes = "
            f"{max_bytes:,}; take a smaller network or raise max_bytes"
        )


def _pivots(
    point: Point, axes: Channels, chosen: dict[int, Slot], *, bias: bool
) -> tuple[list[int], int]:
    """Columns that the kernel fields make superfluous, and the rank of the gauge among them."""
    changes: list[Change] = []
    for edge in edges(point.graph, axes):
        changes += gauge_fields(point, axes, chosen, edge, bias=bias)
        changes += shift_fields(point, axes, chosen, edge) if bias else ()
    gauge = _matrix(chosen, changes)
    overlap = _matrix(chosen, list(overlap_fields(point, chosen)))
    _, pivots = point.field.reduced(gauge)
    if not len(overlap):
        return pivots, len(pivots)
    _, joint = point.field.reduced(torch.cat([gauge, overlap]))
    return joint, len(pivots)


def _uniform_bound(point: Point, axes: Channels) -> float:
    """Bound on the dimension with constants from the one without, where constants are uniform.

    Without zero padding every constant is the same at all positions, so the constant term of the
    function is one number per channel of the output: it adds at most that many dimensions.
    """
    layers = [node.layer for node in point.graph.nodes]
    padded = any(isinstance(a, Conv) and any(map(any, a.padding)) for a in layers)
    uneven = any(isinstance(a, AveragePool) and not even(a) for a in layers)
    mixed = any(
        order is None and not isinstance(layers[i], Conv | Linear)
        for i, order in axes.order.items()
    )
    if padded or uneven or mixed:
        return math.inf
    found = spans(point.graph, axes, point.field, bias=False)
    offsets = {id(w) for _, name, w in point.graph.weights() if name == "bias"}
    varying = replace(point, owners=tuple(o for o in point.owners if o not in offsets))
    chosen = slots(varying, axes, found)
    pivots, _ = _pivots(varying, axes, chosen, bias=False)
    linear = sum(len(slot.kept) for slot in chosen.values()) - len(pivots)
    return linear + axes.count[point.graph.output] if found.spanner.generic else math.inf


def _matrix(chosen: dict[int, Slot], changes: list[Change]) -> torch.Tensor:
    """Fields as rows over all kept columns."""
    rows = []
    for change in changes:
        count = len(next(iter(change.values())))
        parts = [
            change.get(owner, torch.zeros(count, len(slot.kept), dtype=torch.int64))
            for owner, slot in chosen.items()
        ]
        rows.append(torch.cat(parts, 1))
    columns = sum(len(slot.kept) for slot in chosen.values())
    return torch.cat(rows) if rows else torch.zeros(0, columns, dtype=torch.int64)


def _without(chosen: dict[int, Slot], pivots: list[int]) -> dict[int, torch.Tensor]:
    """For each owner the flat indices that are left."""
    columns = sum(len(slot.kept) for slot in chosen.values())
    left = torch.ones(columns, dtype=torch.bool)
    left[pivots] = False
    parts = left.split([len(slot.kept) for slot in chosen.values()])
    return {o: slot.kept[part] for (o, slot), part in zip(chosen.items(), parts, strict=True)}
