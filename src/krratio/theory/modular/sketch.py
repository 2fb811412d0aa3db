"""The Jacobian of parameters -> function modulo a prime, through random functionals.

Row i is the gradient of u_i . network(x_i) at random u_i and x_i. These rank-one functionals span
the dual of the space that W_X lives in, so m generic ones are injective on any subspace of
dimension m: with as many rows as the rank can have, the rank of the sketch is that of the Jacobian,
and the cost depends on the number of parameters, not on the size T D of W_X. One sample costs one
forward and one backward pass.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from krratio.errors import KrratioError
from krratio.networks.graph import INPUT, Graph
from krratio.networks.layers import BatchNorm, Conv, Shape
from krratio.theory.modular.field import Field
from krratio.theory.modular.rules import BACKWARD, FORWARD, Arithmetic

__all__ = ["Point", "random_point", "sketch"]

_BYTES = 2**28
"""Activations and patches of one batch of samples."""


@dataclass(frozen=True, eq=False)
class Point:
    """A random point of the parameter space.

    Attributes
    ----------
    graph
        The network with residues for weights.
    owners
        Ids of the residue tensors that vary (those of ``graph``), shared ones once.
    field
        The prime field.
    """

    graph: Graph
    owners: tuple[int, ...]
    field: Field

    @property
    def sizes(self) -> dict[int, int]:
        """Number of parameters of each owner."""
        sizes = {id(w): w.numel() for _, _, w in self.graph.weights()}
        return {owner: sizes[owner] for owner in self.owners}


def random_point(
    graph: Graph, own: set[int], field: Field, generator: np.random.Generator, *, bias: bool
) -> Point:
    """Draw what varies, and the statistics of BatchNorm; what is fixed keeps its exact value."""
    drawn: dict[int, Tensor] = {}
    varying: dict[int, None] = {}
    for node, name, weight in graph.weights():
        if id(weight) in drawn:
            continue
        statistics = isinstance(node.layer, BatchNorm) and name in ("mean", "variance")
        unused = name == "bias" and not bias
        if id(weight) in own or statistics:
            drawn[id(weight)] = field.random(generator, *weight.shape)
        elif unused:
            drawn[id(weight)] = torch.zeros(weight.shape, dtype=torch.int64)
        elif weight.is_meta:
            raise KrratioError("a fixed weight lies on device='meta'; its value is needed")
        else:
            drawn[id(weight)] = field.elements(weight)
        if id(weight) in own and not unused:
            varying[id(drawn[id(weight)])] = None
    return Point(graph.map_weights(lambda w: drawn[id(w)]), tuple(varying), field)


def sketch(
    point: Point,
    kept: dict[int, Int[Tensor, " n"]],
    rows: int,
    generator: np.random.Generator,
    *,
    bias: bool,
) -> Int[Tensor, "rows columns"]:
    """Rows of the Jacobian under random functionals, in the kept parameters only.

    Parameters
    ----------
    point
        Where the derivative is taken.
    kept
        For each owner the flat indices of the parameters that have a column.
    rows
        How many functionals.
    generator
        Draws them.
    bias
        Whether constants belong to the function; an input is then (x, 1), which is as generic.
    """
    size = _batch(point.graph, kept)
    parts = [
        _rows(point, kept, min(size, rows - start), generator, bias=bias)
        for start in range(0, rows, size)
    ]
    columns = sum(len(index) for index in kept.values())
    return torch.cat([torch.zeros(0, columns, dtype=torch.int64), *parts])


def _rows(
    point: Point,
    kept: dict[int, Int[Tensor, " n"]],
    count: int,
    generator: np.random.Generator,
    *,
    bias: bool,
) -> Tensor:
    graph, by = point.graph, Arithmetic(point.field, bias)
    values = {INPUT: point.field.random(generator, count, *graph.input_shape)}
    for i, node in enumerate(graph.nodes):
        values[i] = FORWARD[type(node.layer)](by, node.layer, *(values[s] for s in node.inputs))
    pulled = {graph.output: point.field.random(generator, count, *graph.output_shape)}
    columns = {o: torch.zeros(count, len(index), dtype=torch.int64) for o, index in kept.items()}
    for i in range(graph.output, INPUT, -1):
        if i not in pulled:
            continue
        node, y = graph.nodes[i], pulled.pop(i)
        inputs = [values[s] for s in node.inputs]
        parts, gradients = BACKWARD[type(node.layer)](by, node.layer, y, *inputs)
        for source, part in zip(node.inputs, parts, strict=True):
            pulled[source] = by.field.add(pulled[source], part) if source in pulled else part
        for name, gradient in gradients.items():
            owner = id(node.layer.weights()[name])
            if owner in kept:
                new = gradient.reshape(count, -1)[:, kept[owner]]
                columns[owner] = by.field.add(columns[owner], new)
    nothing = torch.zeros(count, 0, dtype=torch.int64)
    return torch.cat([nothing, *columns.values()], 1)


def _batch(graph: Graph, kept: dict[int, Tensor]) -> int:
    """Samples at a time: all values stay until the way back, and the largest layer has limbs."""
    values = sum(_size(node.shape) for node in graph.nodes) + _size(graph.input_shape)
    largest = max((_work(graph, i) for i in range(len(graph.nodes))), default=0)
    columns = sum(len(index) for index in kept.values())
    return max(1, _BYTES // (8 * (values + 10 * largest + columns + 1)))


def _work(graph: Graph, index: int) -> int:
    node = graph.nodes[index]
    work = _size(node.shape) + sum(_size(graph.shape(s)) for s in node.inputs)
    if isinstance(node.layer, Conv):
        volume = node.layer.weight[0].numel() * node.layer.groups
        work += volume * _size(node.shape[1:])
    return work


def _size(shape: Shape) -> int:
    return int(np.prod(shape, dtype=int))
