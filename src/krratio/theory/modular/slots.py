"""Parameters that need a column: the others repeat what these do.

With P the coreach behind a weight W and Q the reach before it, W and W + dW give the same function
to first order whenever P dW Q = 0. So only the entries of W on the pivot channels of both sides
are varied; every other direction is, up to such a dW, one of these.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from krratio.networks.graph import Graph
from krratio.networks.layers import Conv, Linear
from krratio.theory.modular.channels import Channels, dense
from krratio.theory.modular.field import Field
from krratio.theory.modular.reach import Span, Spans
from krratio.theory.modular.sketch import Point

__all__ = ["Slot", "moved", "slots"]


@dataclass(frozen=True, eq=False)
class Slot:
    """The columns of one varying tensor.

    Attributes
    ----------
    node, name
        Where it is used (the first place, if shared).
    shared
        It is used more than once: all of it is kept, and no field moves it.
    kept
        Flat indices that have a column.
    left, right
        Per group the functionals read of its outputs and the vectors that reach its inputs;
        ``right`` is empty for what adds to channels (biases, BatchNorm).
    """

    node: int
    name: str
    shared: bool
    kept: Int[Tensor, " n"]
    left: tuple[Span, ...]
    right: tuple[Span, ...]


def slots(point: Point, axes: Channels, found: Spans) -> dict[int, Slot]:
    """Choose the columns of every varying tensor of a point."""
    uses: dict[int, list[tuple[int, str]]] = {owner: [] for owner in point.owners}
    for i, node in enumerate(point.graph.nodes):
        for name, weight in node.layer.weights().items():
            if id(weight) in uses:
                uses[id(weight)].append((i, name))
    return {owner: _slot(point, axes, found, places) for owner, places in uses.items()}


def _slot(point: Point, axes: Channels, found: Spans, places: list[tuple[int, str]]) -> Slot:
    i, name = places[0]
    layer = point.graph.nodes[i].layer
    weight, shared = layer.weights()[name], len(places) > 1
    everything = torch.arange(weight.numel())
    mixes = isinstance(layer, Conv | Linear)
    if shared or not (mixes or name == "bias") or axes.count[i] != weight.shape[0]:
        return Slot(i, name, shared, everything, (), ())
    after = found.coreach[i]
    if name == "bias":
        return Slot(i, name, False, torch.tensor(after.pivots), (after,), ())
    blocks, spanner = _blocks(point.graph, axes, i), found.spanner
    groups, k, c, _ = blocks.shape
    left = tuple(spanner.part(after, g * k, (g + 1) * k) for g in range(groups))
    before = found.reach[point.graph.nodes[i].inputs[0]]
    right = tuple(spanner.part(before, g * c, (g + 1) * c) for g in range(groups))
    grid = everything.reshape(blocks.shape)
    kept = [grid[g][left[g].pivots][:, right[g].pivots].flatten() for g in range(groups)]
    return Slot(i, name, False, torch.cat(kept), left, right)


def _blocks(graph: Graph, axes: Channels, i: int) -> Tensor:
    node = graph.nodes[i]
    assert isinstance(node.layer, Conv | Linear)
    return dense(node.layer, axes.count[node.inputs[0]])


def moved(field: Field, slot: Slot, change: Int[Tensor, "f *shape"]) -> Int[Tensor, "f n"]:
    """Coordinates, in the kept columns, of changes that have the shape of the dense weight.

    Parameters
    ----------
    field
        The prime field.
    slot
        The columns.
    change
        (f, g, k, c, a) for weights that mix channels, else (f, size).
    """
    if not slot.left:
        return change.flatten(1)
    if not slot.right:
        return field.matmul(change, slot.left[0].rows.T)
    parts = []
    for g, (left, right) in enumerate(zip(slot.left, slot.right, strict=True)):
        inner = field.matmul(left.rows, change[:, g].flatten(2)).unflatten(2, change.shape[3:])
        parts.append(field.matmul(right.rows, inner).flatten(1))
    return torch.cat(parts, 1)
