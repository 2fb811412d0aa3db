"""The map of each layer kind and its adjoint; with them, a network's run and its pull-back.

Both tables have one row per layer kind. Everything is differentiable in the weights, and computed
in the dtype of the weights: make the graph float64 first (:meth:`Graph.double`).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from krratio.networks.graph import INPUT, Graph
from krratio.networks.layers import (
    AveragePool,
    BatchNorm,
    Conv,
    Layer,
    Linear,
    Placement,
    Reindex,
    Shape,
    Sum,
)
from krratio.theory.position import pool_position

__all__ = ["ADJOINT", "FORWARD", "offset", "pull_back", "run"]

_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


def _geometry(layer: Conv) -> dict[str, Any]:
    return {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups}


def _conv(layer: Conv, x: Tensor) -> Tensor:
    pads = [p for pair in reversed(layer.padding) for p in pair]
    convolve = _CONV[len(layer.kernel)]
    return convolve(F.pad(x, pads), layer.weight, layer.bias, **_geometry(layer))


def _conv_adjoint(layer: Conv, y: Tensor, shape: Shape) -> tuple[Tensor]:
    spread = _TRANSPOSE[len(layer.kernel)](y, layer.weight, **_geometry(layer))
    for j, (before, after) in enumerate(layer.padding):
        mode, size = j + 2, shape[j + 1]
        unseen = before + size + after - spread.shape[mode]  # places that no window reaches
        pads = [0, 0] * (y.ndim - 1 - mode) + [0, unseen]
        spread = F.pad(spread, pads).narrow(mode, before, size)
    return (spread,)


def _along_modes(layer: AveragePool, x: Tensor, side: int) -> Tensor:
    """Contract every spatial mode with side 0 (positions) or 1 (inputs) of its (p, d) matrix."""
    for j, windows in enumerate(layer.modes):
        matrix = pool_position(windows)[0].to(x)
        x = torch.tensordot(x, matrix, ([j + 2], [side])).movedim(-1, j + 2)
    return x


def _pool(layer: AveragePool, x: Tensor) -> Tensor:
    return _along_modes(layer, x, 1)


def _pool_adjoint(layer: AveragePool, y: Tensor, _shape: Shape) -> tuple[Tensor]:
    return (_along_modes(layer, y, 0),)


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 2))


def _batch_norm(layer: BatchNorm, x: Tensor) -> Tensor:
    return x * _per_channel(layer.scale(), x) + _per_channel(layer.shift(), x)


def _batch_norm_adjoint(layer: BatchNorm, y: Tensor, _shape: Shape) -> tuple[Tensor]:
    return (y * _per_channel(layer.scale(), y),)


def _linear(layer: Linear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)


def _linear_adjoint(layer: Linear, y: Tensor, _shape: Shape) -> tuple[Tensor]:
    return (y @ layer.weight,)


def _reindex(layer: Reindex, x: Tensor) -> Tensor:
    flat = x.reshape(len(x), -1)
    flat = flat if layer.index is None else flat[:, layer.index.to(x.device)]
    return flat.reshape(len(x), *layer.target)


def _reindex_adjoint(layer: Reindex, y: Tensor, shape: Shape) -> tuple[Tensor]:
    flat = y.reshape(len(y), -1)
    if layer.index is not None:
        empty = flat.new_zeros(len(y), math.prod(shape))
        flat = empty.index_add(1, layer.index.to(y.device), flat)
    return (flat.reshape(len(y), *shape),)


def _sum(layer: Sum, *inputs: Tensor) -> Tensor:
    terms = [c * x for c, x in zip(layer.coefficients, inputs, strict=True)]
    return torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]


def _sum_adjoint(layer: Sum, y: Tensor, *_shapes: Shape) -> tuple[Tensor, ...]:
    return tuple(c * y for c in layer.coefficients)


FORWARD: dict[type[Layer], Callable[..., Tensor]] = {
    Conv: _conv,
    Placement: _conv,
    AveragePool: _pool,
    BatchNorm: _batch_norm,
    Linear: _linear,
    Reindex: _reindex,
    Sum: _sum,
}
"""(layer, *inputs) -> value; tensors carry the batch first."""

ADJOINT: dict[type[Layer], Callable[..., tuple[Tensor, ...]]] = {
    Conv: _conv_adjoint,
    Placement: _conv_adjoint,
    AveragePool: _pool_adjoint,
    BatchNorm: _batch_norm_adjoint,
    Linear: _linear_adjoint,
    Reindex: _reindex_adjoint,
    Sum: _sum_adjoint,
}
"""(layer, cotangent, *input shapes) -> one cotangent per input; constants play no part."""


def run(graph: Graph, x: Float[Tensor, "n *in"]) -> Float[Tensor, "n *out"]:
    """Run the network from its specs, in the dtype of its weights."""
    values = {INPUT: x}
    for i, node in enumerate(graph.nodes):
        inputs = (values[source] for source in node.inputs)
        values[i] = FORWARD[type(node.layer)](node.layer, *inputs)
    return values[graph.output]


def offset(graph: Graph, like: Tensor) -> Float[Tensor, "*out"]:
    """What the network puts out for the zero input, in the dtype and place of ``like``."""
    return run(graph, like.new_zeros(1, *graph.input_shape))[0]


def pull_back(
    graph: Graph, rows: Float[Tensor, "m *out"], *, to: int = INPUT
) -> Float[Tensor, "m *at"]:
    """Pull functionals of the output back to a node's value (or to the input) by the adjoints.

    Parameters
    ----------
    graph
        The network.
    rows
        m functionals <rows[i], output>; the identity gives the network's whole matrix.
    to
        Node to stop at. What reaches the output around that node is left out, so ``to`` must lie
        on every path (the caller's business).

    Returns
    -------
    Tensor
        (m, *shape of the node's value): <rows[i], network(x) - network(0)> = <result[i], value>.
    """
    pulled: dict[int, Tensor] = {graph.output: rows}
    for i in range(graph.output, to, -1):
        if i not in pulled:
            continue
        node, y = graph.nodes[i], pulled.pop(i)
        shapes = [graph.shape(source) for source in node.inputs]
        for source, part in zip(
            node.inputs, ADJOINT[type(node.layer)](node.layer, y, *shapes), strict=True
        ):
            pulled[source] = pulled[source] + part if source in pulled else part
    return pulled[to] if to in pulled else rows.new_zeros(len(rows), *graph.shape(to))
