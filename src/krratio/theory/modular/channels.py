"""Channel axes: how the value of each node splits into channels and positions.

Flattening keeps the channels slowest, so a linear layer behind it is a convolution whose window is
the whole grid. Where a reshape mixes channels and positions, the axis starts anew.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from krratio.networks.graph import INPUT, Graph
from krratio.networks.layers import BatchNorm, Conv, Linear, Reindex

__all__ = ["Channels", "channels", "dense"]


@dataclass(frozen=True)
class Channels:
    """The channel axis of each value.

    Attributes
    ----------
    count
        Channels of each node's value (and of the input).
    order
        For nodes that hand channels on: the source channel of each; None where the axis is new.
    """

    count: dict[int, int]
    order: dict[int, Tensor | None]


def channels(graph: Graph) -> Channels:
    """Follow the channel axis through a graph."""
    count: dict[int, int] = {INPUT: graph.input_shape[0]}
    order: dict[int, Tensor | None] = {}
    for i, node in enumerate(graph.nodes):
        counts = {count[s] for s in node.inputs}
        entering = counts.pop() if len(counts) == 1 else 0
        layer, kept = node.layer, None
        if isinstance(layer, Reindex):
            kept = _moved(layer, entering)
        elif isinstance(layer, BatchNorm):
            kept = torch.arange(entering) if entering == len(layer.mean) else None
        elif not isinstance(layer, Conv | Linear) and entering:
            kept = torch.arange(entering)
        order[i] = kept
        count[i] = len(kept) if kept is not None else node.shape[0]
    return Channels(count, order)


def _moved(layer: Reindex, entering: int) -> Tensor | None:
    if layer.index is None and len(layer.target) == 1:
        return torch.arange(entering)
    order = layer.channel_permutation()
    return order if order is not None and len(order) == entering else None


def dense(layer: Conv | Linear, entering: int) -> Int[Tensor, "g K_per_group C_per_group a"]:
    """Weight of a layer that mixes channels: groups, channels out, channels in, window."""
    if isinstance(layer, Conv):
        outputs, inputs = layer.weight.shape[:2]
        return layer.weight.reshape(layer.groups, outputs // layer.groups, inputs, -1)
    return layer.weight.reshape(1, layer.weight.shape[0], entering, -1)
