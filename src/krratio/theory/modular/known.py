"""Everything that is known about the kernel of theta -> function without taking its rank."""

import math
from dataclasses import dataclass, replace

import torch

from krratio.errors import MemoryLimitError
from krratio.networks.layers import AveragePool, Conv, Linear
from krratio.theory.modular.channels import Channels, channels
from krratio.theory.modular.edges import edges, even
from krratio.theory.modular.gauge import Change, gauge_fields, shift_fields
from krratio.theory.modular.overlap import overlap_fields
from krratio.theory.modular.reach import spans
from krratio.theory.modular.sketch import Point
from krratio.theory.modular.slots import Slot, slots

__all__ = ["Known", "field_matrix", "known_kernel"]


@dataclass(frozen=True, eq=False)
class Known:
    """Superfluous parameters of a network at a point, by reason.

    Attributes
    ----------
    slots
        Columns of each varying tensor that are left after the slack of wide channel edges.
    pivots
        Those of them that gauge and overlap make superfluous.
    parameters, folded, free, uniform, ambient
        Sizes, each a bound on the dimension: what varies; without slack; without gauge and overlap
        either; with offsets counted once per output channel where nothing is padded; of the space
        that the function lives in.
    gauge
        Rank of the gauge fields.
    generic
        The spans behind the slack have the ranks that the shapes prescribe.
    """

    slots: dict[int, Slot]
    pivots: list[int]
    parameters: int
    folded: int
    free: int
    uniform: int
    ambient: int
    gauge: int
    generic: bool

    @property
    def upper(self) -> int:
        """Smallest of the bounds on the dimension."""
        return min(self.uniform, self.ambient)

    @property
    def reasons(self) -> tuple[tuple[str, int], ...]:
        """How many parameters each reason makes superfluous."""
        return (
            ("slack", self.parameters - self.folded),
            ("gauge", self.gauge),
            ("overlap", self.folded - self.free - self.gauge),
            ("offsets", self.free - self.uniform),
            ("ambient", self.uniform - self.upper),
        )


_BYTES_PER_ENTRY = 60
"""A residue as int64, in flint, and as an integer in the list between the two."""


def known_kernel(point: Point, *, bias: bool, max_bytes: int) -> Known:
    """Slack, gauge, overlap and ambient of a network of residues.

    Parameters
    ----------
    point
        Where the fields are taken; their ranks there bound the generic ones from below.
    bias
        Whether constants belong to the function.
    max_bytes
        Limit on a square matrix over the columns that are left.

    Raises
    ------
    MemoryLimitError
        The matrices would be larger than the limit.
    """
    graph, axes = point.graph, channels(point.graph)
    found = spans(graph, axes, point.field, bias=bias)
    chosen = slots(point, axes, found)
    folded = sum(len(slot.kept) for slot in chosen.values())
    if _BYTES_PER_ENTRY * folded**2 > max_bytes:
        raise MemoryLimitError(
            f"the Jacobian with {folded:,} columns takes up to {_BYTES_PER_ENTRY * folded**2:,} "
            f"bytes, above max_bytes = {max_bytes:,}; take a smaller network or raise max_bytes"
        )
    pivots, gauge = _pivots(point, axes, chosen, bias=bias)
    free = folded - len(pivots)
    return Known(
        slots=chosen,
        pivots=pivots,
        parameters=sum(point.sizes.values()),
        folded=folded,
        free=free,
        uniform=int(min(free, _uniform_bound(point, axes))) if bias else free,
        ambient=math.prod(graph.output_shape) * (math.prod(graph.input_shape) + bias),
        gauge=gauge,
        generic=found.spanner.generic,
    )


def _pivots(
    point: Point, axes: Channels, chosen: dict[int, Slot], *, bias: bool
) -> tuple[list[int], int]:
    """Columns that the kernel fields make superfluous, and the rank of the gauge among them."""
    changes: list[Change] = []
    for edge in edges(point.graph, axes):
        changes += gauge_fields(point, axes, chosen, edge, bias=bias)
        changes += shift_fields(point, axes, chosen, edge) if bias else ()
    gauge = field_matrix(chosen, changes)
    overlap = field_matrix(chosen, list(overlap_fields(point, chosen)))
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


def field_matrix(chosen: dict[int, Slot], changes: list[Change]) -> torch.Tensor:
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
