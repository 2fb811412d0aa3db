"""Channel edges: all values that hold the same K channels, what writes them and what reads them.

A convolution read by another makes an edge of one value. Sums join edges: along a skip the layer
before it, the branch's last layer and everything that reads either share their channels. Behind a
concatenation the channels are a slice of more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from krratio.auditing.structure.flow import Flow
from krratio.auditing.structure.layers import MixingLayer
from krratio.auditing.walking.kinds import Role, role_of
from krratio.auditing.walking.operations import Operation
from krratio.rewriting.folding.plain import RefusalError, check_named_once, check_plain, module_at

__all__ = ["Edge", "edge_behind"]

_MOVES = (
    "view _unsafe_view _reshape_alias reshape flatten squeeze unsqueeze clone contiguous alias "
    "detach dropout neg neg_"
).split()
_KEEPING = {Role.AVERAGE, Role.MOVE, Role.RESIZE, Role.PAD, Role.MULTIPLY}
_SUMS = ("add", "add_", "sub", "sub_", "rsub")


@dataclass
class Edge:
    """K channels that several layers may write and read.

    Attributes
    ----------
    K
        The channels.
    producers, readers
        By the name of their module; a layer can be both.
    slices, totals
        For each reader: which of the channels that it reads these are, and how many it reads.
    norms
        Name of a producer -> name of the BatchNorm behind it.
    signs
        For each reader the sum of producers that it sees: name of a producer -> its factor.
    padded
        Readers that see zeros beside the channels, put there by an operation of its own.
    """

    K: int
    producers: dict[str, MixingLayer] = field(default_factory=dict)
    readers: dict[str, MixingLayer] = field(default_factory=dict)
    slices: dict[str, slice] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    norms: dict[str, str] = field(default_factory=dict)
    signs: dict[str, dict[str, float]] = field(default_factory=dict)
    padded: set[str] = field(default_factory=set)


def edge_behind(flow: Flow, layer: MixingLayer, model: nn.Module, wrong: Mapping[str, str]) -> Edge:
    """Return the edge that a layer writes.

    Raises
    ------
    RefusalError
        It cannot be folded; the message is the obstacle. ``wrong`` holds those found before.
    """
    search = _Search(flow, model, layer.K)
    try:
        search.run(layer)
    except RefusalError as refusal:
        if search.sums:
            raise RefusalError(f"{refusal}, and a sum joins other channels to it") from None
        raise
    edge = search.edge
    for name in edge.producers:
        if name in wrong:
            raise RefusalError(wrong[name])
    signs = _signs(flow, search)
    edge.signs = {name: signs[reader.source] for name, reader in edge.readers.items()}
    padded = _padded(flow, search)
    edge.padded = {name for name, reader in edge.readers.items() if reader.source in padded}
    return edge


Place = tuple[int, int]  # the first of the edge's channels in a value, and all channels there


class _Search:
    """Goes from a layer's channels to everything that has to change with them."""

    def __init__(self, flow: Flow, model: nn.Module, K: int) -> None:
        self.flow, self.model, self.edge = flow, model, Edge(K)
        self.values: dict[int, Place] = {}
        self.sums = False

    def run(self, layer: MixingLayer) -> None:
        self._producer(layer, "it")
        whole = 0, layer.K
        open_ = [(layer.target, whole)]
        while open_:
            value, place = open_.pop()
            if value not in self.values:
                self.values[value] = place
                open_ += self._onward(value)
                open_ += [(v, whole) for v in self._back(value)] if place == whole else []

    def _onward(self, value: int) -> list[tuple[int, Place]]:
        flow, found = self.flow, list[tuple[int, Place]]()
        if value in flow.walk.outputs:
            raise RefusalError("its channels are an output of the network")
        if not flow.readers[value]:
            raise RefusalError("nothing reads it")
        for i in flow.readers[value]:
            operation, role = flow.walk.operations[i], flow.role(i)
            place = self.values[value]
            if i in flow.at:
                self._reader(flow.at[i], place)
                continue
            if role is Role.BATCH_NORM:
                self._norm(value, i)
            elif self._adds(i):
                self._sum(value)
            elif role is Role.CONCAT:
                place = self._joined(value, i)
            else:
                self._keeps(i, f"{role.value} ({operation.name}) follows")
            found.append((operation.outputs[0], place))
        return found

    def _adds(self, i: int) -> bool:
        """Whether an operation adds values of one shape."""
        operation, shapes = self.flow.walk.operations[i], self.flow.walk.shapes
        alike = len({shapes[v] for v in (*operation.inputs, *operation.outputs[:1])}) == 1
        return operation.name in _SUMS and self.flow.joins(i) and alike

    def _sum(self, value: int) -> None:
        self.sums = True
        if self.values[value] != (0, self.edge.K):
            raise RefusalError("a sum behind a concatenation follows")

    def _joined(self, value: int, i: int) -> Place:
        """Where a concatenation puts the channels of a value."""
        operation, shapes = self.flow.walk.operations[i], self.flow.walk.shapes
        inputs = operation.inputs
        whole = sum(shapes[v][1] for v in inputs)
        flat = any(len(shapes[v]) < 2 for v in inputs)
        if flat or shapes[operation.outputs[0]][1] != whole or operation.name != "cat":
            raise RefusalError("a concatenation of other modes, or with a constant, follows")
        if inputs.count(value) > 1 or any(v in self.values for v in inputs if v != value):
            raise RefusalError("it is concatenated with itself")
        first, total = self.values[value]
        if shapes[value][1] != total:
            raise RefusalError("a concatenation behind flattening follows")
        return first + sum(shapes[v][1] for v in inputs[: inputs.index(value)]), whole

    def _back(self, value: int) -> list[int]:
        flow = self.flow
        i = flow.makers.get(value)
        if i is None:
            raise RefusalError("a skip adds the network's input to its channels")
        if i in flow.at:
            self._producer(flow.at[i], flow.at[i].name)
            return []
        operation, role = flow.walk.operations[i], flow.role(i)
        if role is not Role.BATCH_NORM and not self._adds(i):
            self._keeps(i, f"{role.value} ({operation.name}) writes the same channels")
        return list(operation.inputs)

    def _producer(self, layer: MixingLayer, name: str) -> None:
        check_plain(self.flow, layer, self.model)
        if layer.groups > 1:
            raise RefusalError(f"{name} has groups")
        if layer.kind == "linear" and len(self.flow.walk.shapes[layer.source]) != 2:
            raise RefusalError(f"{name} is a linear layer along another axis than the channels")
        if layer.K != self.edge.K:
            raise RefusalError(f"{name} writes channels and places in one")
        self.edge.producers[layer.name] = layer

    def _reader(self, layer: MixingLayer, place: Place) -> None:
        if layer.groups > 1:
            raise RefusalError("a grouped or depthwise layer follows")
        if layer.kind == "linear" and len(self.flow.walk.shapes[layer.source]) != 2:
            raise RefusalError("a linear layer follows along another axis")
        check_plain(self.flow, layer, self.model)
        self.edge.readers[layer.name] = layer
        first, self.edge.totals[layer.name] = place
        self.edge.slices[layer.name] = slice(first, first + self.edge.K)

    def _norm(self, value: int, i: int) -> None:
        """A BatchNorm that alone reads a producer is a part of it."""
        flow, at = self.flow, self.flow.makers.get(value)
        name = flow.walk.operations[i].module
        norm = module_at(self.model, name)
        if at not in flow.at or len(flow.readers[value]) > 1:
            raise RefusalError("a norm follows that is not right behind one layer")
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
            raise RefusalError("a norm that is no module follows")
        check_named_once(flow, self.model, norm, name, i)
        self.edge.norms[flow.at[at].name] = name

    def _keeps(self, i: int, otherwise: str) -> None:
        """Refuse what does not treat the channels one by one and alike."""
        flow, operation = self.flow, self.flow.walk.operations[i]
        before = flow.walk.shapes[operation.inputs[0]]
        after = flow.walk.shapes[operation.outputs[0]]
        role = flow.role(i)
        if role not in _KEEPING or flow.joins(i):
            raise RefusalError(otherwise)
        if role is Role.MULTIPLY and _number(operation) is None:
            raise RefusalError(otherwise)
        if role is Role.PAD and operation.options.get(2):
            raise RefusalError("padding with another number than 0 follows")
        kept = len(after) > 1 and after[:2] == before[:2]
        flat = role is Role.MOVE and len(after) == 2 and after[:1] == before[:1]
        if role is Role.MOVE and not (operation.name in _MOVES and (kept or flat)):
            raise RefusalError(f"its channels are moved ({operation.name})")
        if not (kept or flat):
            raise RefusalError(f"{role.value} over channels follows")
        if role is Role.AVERAGE:
            _check_average(operation, len(before))


def _check_average(operation: Operation, modes: int) -> None:
    """Refuse what averages over channels, pads, or divides by another number than it sums."""
    lists = {i: o for i, o in operation.options.items() if isinstance(o, list | tuple)}
    if operation.name.startswith("avg_pool"):
        if any(lists.get(3, ())):
            raise RefusalError("padded pooling follows")
        if operation.options.get(6) is not None or operation.options.get(4):
            raise RefusalError("pooling with another divisor follows")
    elif operation.name == "mean":
        axes = {axis % modes for axis in lists.get(1, range(modes))}
        if axes & {0, 1}:
            raise RefusalError("a mean over channels follows")
    elif operation.name == "sum":
        raise RefusalError("a sum over places follows")


def _number(operation: Operation) -> float | None:
    """The number that an operation multiplies by, if it is one for all entries."""
    number = operation.options.get(1)
    if len(operation.shapes) > 1 or not isinstance(number, int | float) or not number:
        return None
    if operation.name in ("mul", "mul_"):
        return float(number)
    plain = operation.name in ("div", "div_") and operation.options.get("rounding_mode") is None
    return 1 / float(number) if plain else None


def _factor(operation: Operation, place: int) -> float:
    """What a linear operation multiplies one of its inputs by."""
    alpha = operation.options.get("alpha", 1)
    if operation.name in ("sub", "sub_", "add", "add_"):
        sign = -1 if operation.name.startswith("sub") else 1
        return float(sign * alpha) if place else 1.0
    if operation.name == "rsub":
        return 1.0 if place else -float(alpha)
    if operation.name in ("neg", "neg_"):
        return -1.0
    return _number(operation) or 1.0 if role_of(operation.name) is Role.MULTIPLY else 1.0


def _signs(flow: Flow, search: _Search) -> dict[int, dict[str, float]]:
    """For every value of the edge, with which factor each producer is in it."""
    found: dict[int, dict[str, float]] = {}
    for value in sorted(search.values):  # values are numbered in the order they are made
        i = flow.makers[value]
        operation = flow.walk.operations[i]
        if i in flow.at:
            found[value] = {flow.at[i].name: 1.0}
            continue
        total: dict[str, float] = {}
        inside = [(place, v) for place, v in enumerate(operation.inputs) if v in search.values]
        for place, source in inside:
            for name, factor in found[source].items():
                total[name] = total.get(name, 0.0) + factor * _factor(operation, place)
        found[value] = total
    return found


def _padded(flow: Flow, search: _Search) -> set[int]:
    """Values of the edge with zeros beside the channels."""
    found: set[int] = set()
    for value in sorted(search.values):
        i = flow.makers[value]
        if i in flow.at:
            continue
        inside = found & set(flow.walk.operations[i].inputs)
        if inside or flow.role(i) is Role.PAD:
            found.add(value)
    return found
