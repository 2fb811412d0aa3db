"""Layers with weights, as a walk shows them: channels, window, groups, rank, multiply-adds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from krratio.auditing.walking.kinds import Role, role_of
from krratio.auditing.walking.operations import Operation, Walk

__all__ = ["MixingLayer", "mixing_layers"]


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
    parameters
        Entries of the weight and of the bias.
    entries
        Of the weight alone.
    macs
        Multiply-adds for one image, one for each product with a weight; biases cost none.
    source, target
        Values read and put out.
    """

    operation: int
    name: str
    kind: str
    weight: str
    K: int
    C: int
    window: int
    groups: int
    parameters: int
    entries: int
    macs: int
    source: int
    target: int

    @property
    def title(self) -> str:
        """The module's path, or the weight's where the module does not say which one it is."""
        weight = self.weight.partition(" ")[0]
        return self.name if self.name and "weight" in weight.rpartition(".")[2] else weight

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
    source, weight, *rest = operation.arguments
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
        _trained(walk, operation, (weight, *rest)),
        entries,
        macs,
        source,
        target,
    )


def _linear(walk: Walk, i: int, operation: Operation) -> MixingLayer | None:
    names = [a for a in operation.arguments if isinstance(a, str) and len(_of(walk, a)) == 2]
    if len(operation.inputs) != 1 or len(names) != 1:
        return None
    (source,), (target, *_), (weight,) = operation.inputs, operation.outputs, names
    K, C, given = walk.shapes[target][-1], walk.shapes[source][-1], walk.weights[weight]
    whole = sorted(given) == sorted((K, C))
    if not whole and not (given[1] == C and given[0] >= K):  # rows of it, as attention takes
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
        _trained(walk, operation, operation.arguments),
        K * C,
        math.prod(walk.shapes[target]) * C,
        source,
        target,
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
        _trained(walk, operation, (weight,)),
        K * C,
        0,
        source,
        operation.outputs[0],
    )


def _of(walk: Walk, name: str) -> tuple[int, ...]:
    return walk.weights.get(name, ())


def _trained(walk: Walk, operation: Operation, arguments: Sequence[int | str]) -> int:
    """Entries of the arguments that are parameters, or parts of some."""
    sizes = zip(operation.arguments, operation.shapes, strict=True)
    return sum(math.prod(s) for a, s in sizes if a in arguments and a in walk.trainable)
