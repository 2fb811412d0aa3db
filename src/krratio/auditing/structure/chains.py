"""Linear runs: layers with nothing but linear operations between, and the rank that can pass."""

import math
from dataclasses import dataclass

from krratio.auditing.structure.axes import Layout
from krratio.auditing.structure.flow import Flow
from krratio.auditing.structure.layers import MixingLayer

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
        most; from both sides the smaller of channels and patch sizes. Where other layers of the
        run are added to them it is that of the sum, where anything else is, such as a skip, that
        of the branch alone.
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
    behind, entering = _arriving(flow)
    passing: dict[int, int] = {}
    crossing: dict[int, int] = {}
    for layer in reversed(flow.layers):
        readers, ends = onward[layer.operation]
        read = sum(flow.at[i].window * places * passing[i] for i, places in readers.items())
        whole = layer.K if set(ends) - {"sum", "grouped"} or not readers else read
        own = behind[layer.operation]
        passing[layer.operation] = int(min(layer.K, whole, own))
        joined = [math.ceil(entering[i] / n) for i, n in readers.items() if entering[i] < math.inf]
        if "sum" in ends and len(joined) == len(readers):  # nothing but layers of the run is added
            own = max([own, *joined])
        crossing[layer.operation] = int(min(layer.K, whole, own))
    return crossing


def _arriving(flow: Flow) -> tuple[dict[int, float], dict[int, float]]:
    """Rank that can come out of each layer and go into it, from what lies before in its run."""
    known: dict[int, Arriving] = {}  # by value; none at inputs and behind what is not linear
    behind: dict[int, float] = {}
    entering: dict[int, float] = {}
    for i, operation in enumerate(flow.walk.operations):
        if i in flow.at:
            layer = flow.at[i]
            rank, layout = known.get(layer.source, _NOTHING)
            entering[i] = rank if flow.reads(i, layout) else math.inf
            behind[i] = min(layer.K, min(entering[i], layer.C) * layer.window)
            known[layer.target] = behind[i], flow.layout(layer.target)
        elif flow.linear(i):
            known |= {output: _passed(flow, i, output, known) for output in operation.outputs}
    return behind, entering


def _passed(flow: Flow, i: int, output: int, known: dict[int, "Arriving"]) -> "Arriving":
    """Rank behind a linear operation: the sum of what it reads, if that lies on the same axes."""
    total, layouts = 0.0, set()
    for value in dict.fromkeys(flow.walk.operations[i].inputs):
        rank, before = known.get(value, _NOTHING)
        after = flow.layout_after(i, value, output, before)
        total += rank * flow.spread(before, after)
        layouts.add(after)
    (layout,) = layouts if len(layouts) == 1 else (None,)
    return (math.inf, None) if layout is None else (total, layout)


Arriving = tuple[float, Layout | None]

_NOTHING: Arriving = (math.inf, None)
