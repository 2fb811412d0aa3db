"""Overlapping patches as explicit kernel fields: relations between shifted position weights.

For one output, W_X is a sum of products of polynomials, kernel times (pooled) position weights, the
latter in powers of the window step. Two channels k and k' therefore have the trivial relation
A_k B_k + A_k' B_k' = (A_k + h B_k') B_k + (A_k' - h B_k) B_k', for every polynomial h that leaves
room for it in the kernels. Along a mode with kernel l, p positions and step s, h has
l - (p - 1) s coefficients (none if that is negative).
"""

import itertools
import math
from collections.abc import Iterator

import torch

from krratio.networks.graph import INPUT, Graph
from krratio.networks.layers import AveragePool, Conv, Linear, Reindex, Shape
from krratio.networks.windows import Windows
from krratio.theory.modular.gauge import Change
from krratio.theory.modular.sketch import Point
from krratio.theory.modular.slots import Slot, moved

__all__ = ["overlap_fields"]


def overlap_fields(point: Point, slots: dict[int, Slot]) -> Iterator[Change]:
    """Fields of every pair of channels of conv -> (pool) -> flatten -> one output."""
    conv, last, steps = _plain(point.graph)
    if conv is None or last is None:
        return
    weight, slot = conv.weight, slots.get(id(conv.weight))
    sizes = _positions(point.graph)
    room = [
        max(0, size - (count - 1) * step)
        for size, count, step in zip(conv.kernel, sizes, steps, strict=True)
    ]
    if slot is None or slot.shared or not math.prod(room):
        return
    positions = last.weight.reshape(len(weight), *sizes)
    field = point.field
    for k, other in itertools.combinations(range(len(weight)), 2):
        changes = []
        for c, start in itertools.product(range(weight.shape[1]), _grid(room)):
            change = torch.zeros_like(weight)
            for channel, values in ((k, positions[other]), (other, field.negative(positions[k]))):
                kernel = change[channel, c]
                for j, (h, count, step) in enumerate(zip(start, sizes, steps, strict=True)):
                    kernel = kernel.narrow(j, h, (count - 1) * step + 1)
                    kernel = kernel[(slice(None),) * j + (slice(None, None, step),)]
                kernel.copy_(values)
            changes.append(change.reshape(1, len(weight), weight.shape[1], -1))
        yield {id(weight): moved(field, slot, torch.stack(changes))}


def _grid(sizes: list[int]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, sizes))


def _positions(graph: Graph) -> Shape:
    """Spatial sizes in front of the flattening."""
    flatten = graph.nodes[graph.output].inputs[0]
    return graph.shape(graph.nodes[flatten].inputs[0])[1:]


def _plain(graph: Graph) -> tuple[Conv | None, Linear | None, list[int]]:
    """Convolution, last layer and window steps, if the network is of the plain kind."""
    layers = [node.layer for node in graph.nodes]
    kinds = [type(layer) for layer in layers]
    path = all(node.inputs == (i - 1 if i else INPUT,) for i, node in enumerate(graph.nodes))
    if not path or kinds not in ([Conv, Reindex, Linear], [Conv, AveragePool, Reindex, Linear]):
        return None, None, []
    conv, last, flatten = layers[0], layers[-1], layers[-2]
    assert isinstance(conv, Conv)
    assert isinstance(last, Linear)
    assert isinstance(flatten, Reindex)
    plain = conv.groups == 1 and set(conv.dilation) == {1} and not any(map(any, conv.padding))
    steps = list(conv.stride)
    if isinstance(layers[1], AveragePool):
        pools = [_step(windows) for windows in layers[1].modes]
        plain &= all(pools)
        steps = [s * q for s, q in zip(steps, pools, strict=True)]
    if not plain or last.weight.shape[0] != 1 or flatten.index is not None:
        return None, None, []
    return conv, last, steps


def _step(windows: Windows) -> int:
    """Distance of neighbouring windows if all are alike, else 0."""
    starts = [start for start, _ in windows.bounds]
    widths = {stop - start for start, stop in windows.bounds}
    steps = {b - a for a, b in itertools.pairwise(starts)} or {1}
    alike = len(widths) == len(set(windows.divisors)) == len(steps) == 1
    return steps.pop() if alike else 0
