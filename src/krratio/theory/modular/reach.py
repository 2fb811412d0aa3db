"""What can pass a channel edge: the span that reaches it, and the functionals that are read of it.

The value of a node at any position lies in the *reach* of its channels, a subspace that the layers
before it span; only the functionals in its *coreach* influence the output. Both are found by one
pass through the graph, modulo the prime. A weight change dW whose every coreach functional vanishes
on every reached vector, P dW Q = 0, changes nothing: where the channel edge is wider than what
passes it, these are the kernel directions that gauge does not explain.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from krratio.networks.graph import INPUT, Graph
from krratio.networks.layers import BatchNorm, Conv, Linear, Sum
from krratio.theory.modular.channels import Channels, dense
from krratio.theory.modular.field import Field

__all__ = ["Span", "Spanner", "Spans", "affine", "spans"]


@dataclass(frozen=True, eq=False)
class Span:
    """A subspace of the channel space, by its reduced row echelon form.

    Attributes
    ----------
    rows
        (rank, channels) residues; the columns ``pivots`` of it are the identity.
    pivots
        Channels that alone determine an element.
    """

    rows: Int[Tensor, "r c"]
    pivots: list[int]


@dataclass(frozen=True, eq=False)
class Spans:
    """Reach and coreach of every value.

    Attributes
    ----------
    reach, coreach
        For each node, and for the input.
    spanner
        What made them, and knows whether their ranks are generic.
    """

    reach: dict[int, Span]
    coreach: dict[int, Span]
    spanner: "Spanner"


class Spanner:
    """Makes spans, and watches their ranks.

    Attributes
    ----------
    generic
        Every rank so far is the largest that the shapes allow. It is then the rank at a generic
        point over the rationals too; without that, an upper bound built on spans is unproved.
    """

    def __init__(self, field: Field) -> None:
        self.field, self.generic = field, True

    def full(self, count: int) -> Span:
        """Whole channel space."""
        return Span(torch.eye(count, dtype=torch.int64), list(range(count)))

    def of(self, rows: Tensor, bound: int) -> Span:
        """Span of rows whose rank the shapes bound."""
        reduced, pivots = self.field.reduced(rows)
        self.generic &= len(pivots) == min(bound, *rows.shape)
        return Span(reduced, pivots)

    def part(self, span: Span, start: int, stop: int) -> Span:
        """Projection of a span on a range of channels."""
        rows = span.rows[:, start:stop]
        rows = rows[(rows != 0).any(1)]
        whole = len(span.pivots) == span.rows.shape[1]
        return self.full(stop - start) if whole else self.of(rows, len(rows))

    def blocks(self, parts: list[Span]) -> Span:
        """Direct sum."""
        offsets = [0]
        for part in parts:
            offsets.append(offsets[-1] + part.rows.shape[1])
        pivots = [o + p for o, part in zip(offsets, parts, strict=False) for p in part.pivots]
        return Span(torch.block_diag(*(part.rows for part in parts)), pivots)


def spans(graph: Graph, axes: Channels, field: Field, *, bias: bool) -> Spans:
    """Reach and coreach of every value of a graph of residues."""
    spanner = Spanner(field)
    reach = {INPUT: spanner.full(axes.count[INPUT])}
    for i in range(len(graph.nodes)):
        reach[i] = _reach(graph, axes, spanner, reach, i, bias=bias)
    coreach = {graph.output: spanner.full(axes.count[graph.output])}
    readers = graph.readers()
    for i in range(len(graph.nodes) - 1, INPUT - 1, -1):
        if i in coreach:
            continue
        parts = [
            _coreach(graph, axes, spanner, coreach[reader], i, reader) for reader in readers[i]
        ]
        if len(parts) > 1:
            rows = torch.cat([part.rows for part in parts])
            coreach[i] = spanner.of(rows, len(rows))
        else:
            coreach[i] = parts[0]
    return Spans(reach, coreach, spanner)


def _reach(
    graph: Graph,
    axes: Channels,
    spanner: Spanner,
    reach: dict[int, Span],
    i: int,
    *,
    bias: bool,
) -> Span:
    node, field = graph.nodes[i], spanner.field
    layer, order = node.layer, axes.order[i]
    if isinstance(layer, Conv | Linear):
        weight = dense(layer, axes.count[node.inputs[0]])
        offsets = layer.bias if bias else None
        parts = []
        for g, block in enumerate(weight):
            step = block.shape[1]
            into = spanner.part(reach[node.inputs[0]], g * step, (g + 1) * step)
            rows = field.matmul(into.rows, block.permute(2, 1, 0)).flatten(0, 1)
            if offsets is not None:
                rows = torch.cat([rows, offsets.reshape(len(weight), 1, -1)[g]])
            parts.append(spanner.of(rows, len(rows)))
        return spanner.blocks(parts)
    if order is None:
        return spanner.full(axes.count[i])
    if isinstance(layer, Sum):
        rows = torch.cat([reach[s].rows for s in node.inputs])
        return spanner.of(rows, len(rows)) if len(node.inputs) > 1 else reach[node.inputs[0]]
    before = reach[node.inputs[0]]
    if isinstance(layer, BatchNorm):
        scale, shift = affine(layer, field)
        rows = field.multiply(before.rows, scale)
        rows = torch.cat([rows, shift[None]]) if bias else rows
        return spanner.of(rows, len(rows))
    if torch.equal(order, torch.arange(len(order))):
        return before
    return spanner.of(before.rows[:, order], len(before.rows))


def _coreach(
    graph: Graph, axes: Channels, spanner: Spanner, after: Span, i: int, reader: int
) -> Span:
    layer, order, field = graph.nodes[reader].layer, axes.order[reader], spanner.field
    if isinstance(layer, Conv | Linear):
        weight, parts = dense(layer, axes.count[i]), []
        for g, block in enumerate(weight):
            step = block.shape[0]
            read = spanner.part(after, g * step, (g + 1) * step)
            rows = field.matmul(read.rows, block.permute(2, 0, 1)).flatten(0, 1)
            parts.append(spanner.of(rows, len(rows)))
        return spanner.blocks(parts)
    if order is None:
        return spanner.full(axes.count[i])
    if isinstance(layer, BatchNorm):
        scale, _ = affine(layer, field)
        return spanner.of(field.multiply(after.rows, scale), len(after.rows))
    if torch.equal(order, torch.arange(len(order))):
        return after
    return spanner.of(after.rows[:, order.argsort()], len(after.rows))


def affine(layer: BatchNorm, field: Field) -> tuple[Tensor, Tensor]:
    """Scale and shift of a BatchNorm whose ``variance`` holds the inverse deviation."""
    scale = layer.variance
    scale = scale if layer.weight is None else field.multiply(scale, layer.weight)
    shift = field.negative(field.multiply(layer.mean, scale))
    return scale, shift if layer.bias is None else field.add(shift, layer.bias)
