"""Channel edges: who puts channels out, who reads them, and what lies on the way."""

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field as default

import torch
from torch import Tensor

from krratio.networks.graph import Graph
from krratio.networks.layers import AveragePool, BatchNorm, Conv, Linear
from krratio.theory.modular.channels import Channels

__all__ = ["Edge", "edges", "even"]


@dataclass
class Edge:
    """A channel edge: one producer, and everything that reads its channels.

    Attributes
    ----------
    producer
        Index of the convolution or linear layer that puts the channels out.
    consumers
        Convolutions and linear layers, each with the place of every channel in its input.
    norms
        BatchNorms on the way, with the place of every channel; then there is a single way.
    even
        No pooling on the way changes constants, so a constant arrives as that constant.
    """

    producer: int
    consumers: list[tuple[int, Tensor]] = default(default_factory=list)
    norms: list[tuple[int, Tensor]] = default(default_factory=list)
    even: bool = True


def edges(graph: Graph, axes: Channels) -> Iterator[Edge]:
    """Find the channel edges whose every reader is known."""
    for i, node in enumerate(graph.nodes):
        if isinstance(node.layer, Conv | Linear):
            edge = Edge(i)
            if _follow(graph, axes, edge, i, torch.arange(axes.count[i])):
                single = len(edge.consumers) == 1
                if edge.consumers and (single or not edge.norms):
                    yield edge


def _follow(graph: Graph, axes: Channels, edge: Edge, value: int, place: Tensor) -> bool:
    """Walk through what treats channels alike; False where a sum, a mix or the output follows."""
    if value == graph.output:
        return False
    for reader in graph.readers()[value]:
        layer, order = graph.nodes[reader].layer, axes.order[reader]
        if isinstance(layer, Conv | Linear):
            edge.consumers.append((reader, place))
            continue
        if order is None or len(graph.nodes[reader].inputs) > 1:
            return False
        if isinstance(layer, BatchNorm):
            edge.norms.append((reader, place))
        if isinstance(layer, AveragePool):
            edge.even &= even(layer)
        if not _follow(graph, axes, edge, reader, order.argsort()[place]):
            return False
    return True


def even(layer: AveragePool) -> bool:
    """Whether pooling keeps constants: no window counts padded zeros."""
    return all(
        stop - start == divisor
        for windows in layer.modes
        for (start, stop), divisor in zip(windows.bounds, windows.divisors, strict=True)
    )
