"""Linear runs: layers with nothing but linear operations between, and the rank that can pass."""

from dataclasses import dataclass

from krratio.auditing.flow import Flow
from krratio.auditing.layers import MixingLayer

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
        passing[layer.operation] = min(layer.K, whole, behind[layer.operation])
    return passing


def _arriving(flow: Flow) -> dict[int, int]:
    """Rank that can come out of each layer, from what lies before it in its run."""
    ranks: dict[int, int] = {}  # by value; inputs and what is not linear have their channels
    behind: dict[int, int] = {}
    shapes = flow.walk.shapes
    for i, operation in enumerate(flow.walk.operations):
        found = _channels(shapes[operation.outputs[0]]) if operation.outputs else 1
        entering = [ranks.get(v, _channels(shapes[v])) for v in dict.fromkeys(operation.inputs)]
        if i in flow.at:
            layer = flow.at[i]
            found = behind[i] = min(layer.K, entering[0] * layer.window)
        elif flow.linear(i):
            found = min(found, sum(entering) * flow.flattened(i))
        ranks |= dict.fromkeys(operation.outputs, found)
    return behind


def _channels(shape: tuple[int, ...]) -> int:
    return shape[1] if len(shape) > 1 else 1
