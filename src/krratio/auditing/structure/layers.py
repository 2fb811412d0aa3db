"""Layers with weights, as a walk shows them: channels, window, groups, rank, multiply-adds."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from krratio.auditing.walking.kinds import Role, role_of
from krratio.auditing.walking.operations import Operation, Walk

__all__ = ["MixingLayer", "mixing_layers", "parameters_of"]


@dataclass(frozen=True)
class MixingLayer:
    """One use of a convolution, a linear layer or an embedding.

    Attributes
    ----------
    operation
        Its place in the walk.
    name
        Path of the module that owns the weight.
    kind
        ``"conv2d"``, ``"conv_transpose1d"``, ``"linear"``, ``"embedding"`` and so on; depthwise
        convolutions ``"depthwise_conv2d"``.
    weight
        Name of the weight; layers that share it have the same.
    K, C
        Channels out and in, whole; what an embedding takes in are its table's rows.
    window
        Product of the kernel sizes.
    groups
        Of the convolution; 1 for linear layers.
    own
        Name -> entries of the parameters that it uses: its weight, or a part of it, and its bias.
    entries
        Of the weight alone.
    macs
        Multiply-adds for one image, one for each product with a weight; biases cost none.
    source, target
        Values read and put out.
    axis
        Of the channels in both, from the end where it is negative.
    """

    operation: int
    name: str
    kind: str
    weight: str
    K: int
    C: int
    window: int
    groups: int
    own: Mapping[str, int]
    entries: int
    macs: int
    source: int
    target: int
    axis: int

    @property
    def title(self) -> str:
        """The module's path, or the weight's where the module does not say which one it is."""
        weight = self.weight.partition(" ")[0]
        return self.name if self.name and "weight" in weight.rpartition(".")[2] else weight

    @property
    def parameters(self) -> int:
        """Entries of the weight and of the bias."""
        return sum(self.own.values())

    @property
    def fan_in_rank(self) -> int:
        """The largest rank of the (K, C·window) weight: sum over groups of the smaller side."""
        return self.groups * min(self.K // self.groups, self.C // self.groups * self.window)

    @property
    def pointwise(self) -> bool:
        """Whether it mixes channels at one place."""
        return self.window == 1

    @property
    def depthwise(self) -> bool:
        """Whether every group reads a single channel, of several."""
        return self.groups > 1 and self.groups == self.C


def mixing_layers(walk: Walk) -> list[MixingLayer]:
    """All uses of convolutions, linear layers and embeddings whose weight is a parameter."""
    found = []
    for i, operation in enumerate(walk.operations):
        role = role_of(operation.name)
        if role is Role.CONV:
            layer = _convolution(walk, i, operation)
        elif role is Role.MATRIX:
            layer = _linear(walk, i, operation)
        elif role is Role.LOOKUP:
            layer = _embedding(walk, i, operation)
        else:
            layer = None
        if layer is not None:
            found.append(layer)
    return found


def _convolution(walk: Walk, i: int, operation: Operation) -> MixingLayer | None:
    source, weight = operation.arguments[:2]
    if not isinstance(source, int) or not isinstance(weight, str) or weight not in walk.weights:
        return None
    shape, target = operation.shapes[1], operation.outputs[0]
    transposed, groups = bool(operation.options[6]), int(operation.options[8])
    into, out = walk.shapes[source], walk.shapes[target]
    K, C, window = out[1], into[1], math.prod(shape[2:])
    places = math.prod(into if transposed else out)
    kind = f"conv{'_transpose' if transposed else ''}{len(shape) - 2}d"
    if groups > 1 and groups == C:
        kind = f"depthwise_{kind}"
    entries = math.prod(shape)
    macs = places * (K if transposed else C) // groups * window
    return MixingLayer(
        i,
        weight.rpartition(".")[0],
        kind,
        weight,
        K,
        C,
        window,
        groups,
        _trained(walk, operation, {weight: entries}),
        entries,
        macs,
        source,
        target,
        1,
    )


def _linear(walk: Walk, i: int, operation: Operation) -> MixingLayer | None:
    used = zip(operation.arguments, operation.shapes, strict=True)
    names = {a: s for a, s in used if isinstance(a, str) and a in walk.weights and len(s) > 1}
    if len(operation.inputs) != 1 or len(names) != 1:
        return None
    (source,), (target, *_), ((weight, shape),) = operation.inputs, operation.outputs, names.items()
    order, given = operation.arguments, walk.weights[weight]
    left = order.index(weight) < order.index(source)  # it acts on the last axis but one
    axis = -2 if left else -1
    K, C = walk.shapes[target][axis], walk.shapes[source][axis]
    whole = math.prod(given) == K * C and sorted(shape[-2:]) == sorted((K, C))
    rows = len(given) == 2 and given[1] == C and given[0] >= K  # some of them, as attention takes
    if not (whole or rows) or (left and len(walk.shapes[source]) == 2):
        return None
    return MixingLayer(
        i,
        weight.rpartition(".")[0],
        "linear",
        weight if whole else f"{weight} (part {i})",
        K,
        C,
        1,
        1,
        _trained(walk, operation, {weight: K * C}) | _bias_behind(walk, i, weight, K),
        K * C,
        math.prod(walk.shapes[target]) * C,
        source,
        target,
        axis,
    )


def _embedding(walk: Walk, i: int, operation: Operation) -> MixingLayer | None:
    """A linear layer on one-hot vectors, which costs no multiply-add."""
    weight, source = operation.arguments[:2]
    if not isinstance(source, int) or not isinstance(weight, str) or weight not in walk.weights:
        return None
    C, K = operation.shapes[0]
    return MixingLayer(
        i,
        weight.rpartition(".")[0],
        "embedding",
        weight,
        K,
        C,
        1,
        1,
        _trained(walk, operation, {weight: K * C}),
        K * C,
        0,
        source,
        operation.outputs[0],
        -1,
    )


def _trained(walk: Walk, operation: Operation, weight: Mapping[str, int]) -> dict[str, int]:
    """Entries of the arguments that are parameters; those of the weight are given.

    Torch expands a weight over a batch: what an operation reads can be larger than the parameter.
    """
    sizes: dict[str, int] = {}
    for name, shape in zip(operation.arguments, operation.shapes, strict=True):
        if isinstance(name, str) and name in walk.trainable:
            most = math.prod(walk.weights[name])
            sizes[name] = min(most, weight.get(name, math.prod(shape)))
    return sizes


def _bias_behind(walk: Walk, i: int, weight: str, K: int) -> dict[str, int]:
    """The bias that the same module adds next, as a linear layer on a moved tensor does."""
    value, *_ = walk.operations[i].outputs
    for operation in walk.operations[i + 1 : i + 4]:
        if value not in operation.inputs or operation.module != walk.operations[i].module:
            break
        if role_of(operation.name) is Role.ADD:
            return {
                name: K
                for name in operation.arguments
                if isinstance(name, str)
                and name in walk.trainable
                and walk.weights[name] == (K,)
                and name.rpartition(".")[0] == weight.rpartition(".")[0]
            }
        if role_of(operation.name) is not Role.MOVE:
            break
        value, *_ = operation.outputs
    return {}


def parameters_of(walk: Walk, layers: Iterable[MixingLayer]) -> dict[str, int]:
    """Name -> entries of the parameters that layers use together, each counted once."""
    uses = {(each.weight, name): size for each in layers for name, size in each.own.items()}
    sizes: dict[str, int] = {}
    for (_, name), size in uses.items():
        sizes[name] = min(math.prod(walk.weights[name]), sizes.get(name, 0) + size)
    return sizes
