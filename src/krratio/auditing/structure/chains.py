"""Linear runs: layers with nothing but linear operations between, and the rank that can pass."""

import math
from dataclasses import dataclass

from krratio.auditing.structure.flow import Flow
from krratio.auditing.structure.layers import MixingLayer
from krratio.auditing.walking.kinds import Role

__all__ = ["Chain", "chains"]


@dataclass(frozen=True)
class Chain:
    """A maximal linear run of at least two layers.

    Attributes
    ----------
    layers
        In order of the walk.
    ranks
        For each layer whose channels are read inside the run: the rank that can cross them, at
        most; from both sides the smaller of channels and patch sizes, where sums add.
    """

    layers: tuple[MixingLayer, ...]
    ranks: dict[int, int]

    @property
    def widest(self) -> MixingLayer:
        """The layer of the run with most channels over the rank that can cross them."""
        inner = [layer for layer in self.layers if layer.operation in self.ranks]
        return max(inner, key=lambda layer: layer.K / self.ranks[layer.operation])

    @property
    def naive(self) -> int:
        """Entries of all its weights."""
        weights = {layer.weight: layer.entries for layer in self.layers}
        return sum(weights.values())


def chains(flow: Flow) -> list[Chain]:
    """All linear runs, in the order of their first layers."""
    groups = {layer.operation: {layer.operation} for layer in flow.layers}
    onward = {layer.operation: flow.onward(layer.target) for layer in flow.layers}
    readers = {i: found[0] for i, found in onward.items()}
    for i, others in readers.items():
        for other in others:
            joined = groups[i] | groups[other]
            for member in joined:
                groups[member] = joined
    ranks = _ranks(flow, onward)
    found = []
    for members in {min(group): group for group in groups.values()}.values():
        layers = tuple(flow.at[i] for i in sorted(members))
        inner = {i: ranks[i] for i in members if readers[i]}
        if len(layers) > 1 and inner:
            found.append(Chain(layers, inner))
    return sorted(found, key=lambda chain: chain.layers[0].operation)


def _ranks(flow: Flow, onward: dict[int, tuple[dict[int, int], list[str]]]) -> dict[int, int]:
    """Rank that can cross the channels behind each layer: the smaller of both directions."""
    behind = _arriving(flow)
    passing: dict[int, int] = {}
    for layer in reversed(flow.layers):
        readers, ends = onward[layer.operation]
        read = sum(flow.at[i].window * places * passing[i] for i, places in readers.items())
        whole = layer.K if set(ends) - {"sum", "grouped"} or not readers else read
        passing[layer.operation] = int(min(layer.K, whole, behind[layer.operation]))
    return passing


def _arriving(flow: Flow) -> dict[int, float]:
    """Rank that can come out of each layer, from what lies before it in its run."""
    ranks: dict[int, float] = {}  # by value; infinite at inputs and behind what is not linear
    behind: dict[int, float] = {}
    for i, operation in enumerate(flow.walk.operations):
        entering = [ranks.get(v, math.inf) for v in dict.fromkeys(operation.inputs)]
        found = math.inf
        if i in flow.at:
            layer = flow.at[i]
            found = behind[i] = min(layer.K, min(entering[0], layer.C) * layer.window)
        elif flow.linear(i) and _keeps(flow, i):
            found = sum(entering) * flow.flattened(i)
        ranks |= dict.fromkeys(operation.outputs, found)
    return behind


def _keeps(flow: Flow, i: int) -> bool:
    """Whether an operation leaves channels together: no reshape but flattening behind them."""
    operation = flow.walk.operations[i]
    if flow.role(i) is not Role.MOVE:
        return True
    before, after = (flow.walk.shapes[v] for v in (operation.inputs[0], operation.outputs[0]))
    if operation.name in _TOGETHER or before == after or before[-1:] == after[-1:]:
        return True
    return len(after) == 2 and after[:1] == before[:1]


_TOGETHER = ("permute", "transpose", "squeeze", "unsqueeze", "expand", "clone")
