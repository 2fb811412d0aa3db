"""The counts of a network: by the formula of its format, or by its channel edges."""

import math

import numpy as np
from torch import nn

from krratio.errors import NotAPathError
from krratio.networks.graph import Graph
from krratio.networks.layers import BatchNorm, Linear, Shape
from krratio.networks.trace import trace
from krratio.theory.counts.canonical import cp
from krratio.theory.counts.formats import cnn, tt, tucker
from krratio.theory.counts.values import Counts
from krratio.theory.formats import format_of
from krratio.theory.modular.field import Field, draw_prime
from krratio.theory.modular.known import known_kernel
from krratio.theory.modular.sketch import random_point
from krratio.theory.own import own_parameters
from krratio.theory.path import path_of

__all__ = ["count"]


def count(
    model: nn.Module, input_shape: Shape, *, bias: bool = False, max_bytes: int = 8 * 2**30
) -> Counts:
    """Naive, covering, intrinsic and ambient count of a network.

    Parameters
    ----------
    model
        As :func:`krratio.tensorize` takes it; shapes decide, so it may lie on ``device="meta"``.
    input_shape
        (C, d_1, ..., d_N).
    bias
        Count biases and BatchNorm shifts too.
    max_bytes
        Limit on the matrices of symmetries.

    Returns
    -------
    Counts
        ``naive`` is the number of parameters that vary and reach the function (BatchNorm scales
        included). Covering exponent and intrinsic dimension are those of the closed formula where
        the network is exactly of its format (convolutions, pooling, at most one linear layer, no
        constants); else the parameters left by folding, and those less the rank of the known
        symmetries (``format`` is then ``"network"``). Weights over patches are counted: overlap
        can only lower the dimension of the function, see :func:`krratio.intrinsic_dimension`.

    Raises
    ------
    UnsupportedModuleError, ShapeError
        As :func:`krratio.tensorize`.
    MemoryLimitError
        The network is too large for the matrices of its symmetries.
    """
    graph = trace(model, input_shape)
    own = own_parameters(model, graph)
    generator = np.random.default_rng(np.random.SeedSequence(0))
    point = random_point(graph, own, Field(draw_prime(generator)), generator, bias=bias)
    parameters = sum(point.sizes.values())
    closed = None if bias or len(point.sizes) < _weights(graph) else _closed(graph)
    if closed is not None:
        ambient = math.prod(graph.output_shape) * math.prod(graph.input_shape)
        return Counts(
            parameters,
            closed.covering,
            closed.folded,
            closed.intrinsic,
            min(closed.ambient, ambient),
            closed.format,
        )
    known = known_kernel(point, bias=bias, max_bytes=max_bytes)
    symmetries = known.folded - known.gauge
    return Counts(
        known.parameters, known.folded, known.folded, symmetries, known.ambient, "network"
    )


def _weights(graph: Graph) -> int:
    """Number of uses of weights that are no offsets and no statistics."""
    mixing = (name for node, name, _ in graph.weights() if not isinstance(node.layer, BatchNorm))
    return sum(name == "weight" for name in mixing)


def _closed(graph: Graph) -> Counts | None:
    """Counts by the formula of the format, where the network is exactly of one."""
    try:
        path = path_of(graph)
    except NotAPathError:
        return None
    linear = [node.layer for node in graph.nodes if isinstance(node.layer, Linear)]
    if len(linear) > 1 or not path.convs:
        return None
    form, last = format_of(path), path.positions * path.outputs
    kernels, K = form.modes[:-1], path.convs[-1].channels[1]
    if not linear:
        return None
    if form.kind == "tucker":
        uncompressed = [None] * (len(kernels) - 1)
        return tucker(l=kernels, R_j=(form.ranks[0], *uncompressed), R=form.ranks[1], K=K, P=last)
    if form.kind == "cp":
        return cp(l=kernels, R=form.ranks[0], K=K, P=last)
    if any(conv.groups > 1 for conv in path.convs):
        return None
    if len(path.convs) == 1:
        return cnn(l=(path.convs[0].channels[0], *path.convs[0].kernel), K=K, P=last)
    return tt(n=form.modes, r=form.ranks)
