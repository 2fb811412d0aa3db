"""Recurrent layers: LSTM, GRU and plain ones, and their cells."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from krratio.auditing.walking.kinds import Role, role_of
from krratio.auditing.walking.operations import Operation, Walk

__all__ = ["RecurrentLayer", "recurrent_layers"]


@dataclass(frozen=True)
class RecurrentLayer:
    """One use of a recurrent layer, all its depths and directions together.

    Attributes
    ----------
    title
        Path of the module that owns the weights, or of its first weight.
    kind
        ``"lstm"``, ``"gru"``, ``"rnn"``, or ``"lstm_cell"`` and so on.
    K
        Channels that it puts out, of both directions.
    fan_in_rank
        The largest rank of what its last depth computes from its inputs and state, before its
        gates: for each direction the smaller side of the (gates · hidden, C + hidden) weight.
    parameters, entries
        With and without biases.
    macs
        Every weight once for each time step, of all sequences.
    target
        Value put out.
    """

    title: str
    kind: str
    K: int
    fan_in_rank: int
    parameters: int
    entries: int
    macs: int
    target: int


def recurrent_layers(walk: Walk) -> dict[int, RecurrentLayer]:
    """By operation all uses of recurrent layers whose weights are parameters, in order."""
    found = {}
    for i, operation in enumerate(walk.operations):
        if role_of(operation.name) is Role.RECURRENT:
            layer = _layer(walk, operation)
            if layer is not None:
                found[i] = layer
    return found


def _layer(walk: Walk, operation: Operation) -> RecurrentLayer | None:
    pairs = zip(operation.arguments, operation.shapes, strict=True)
    own = {a: s for a, s in pairs if isinstance(a, str) and a in walk.trainable}
    weights = [shape for shape in own.values() if len(shape) == 2]
    depth, directions = _stacked(operation)
    if len(weights) < 2 * depth * directions:  # one is computed
        return None
    entries = sum(map(math.prod, weights))
    return RecurrentLayer(
        next(iter(own)).rpartition(".")[0] or next(iter(own)),
        operation.name.replace("_tanh", "").replace("_relu", ""),
        walk.shapes[operation.outputs[0]][-1],
        directions * _rank(weights),
        sum(map(math.prod, own.values())),
        entries,
        math.prod(operation.shapes[0][:-1]) * entries,
        operation.outputs[0],
    )


def _stacked(operation: Operation) -> tuple[int, int]:
    """Depth and directions, from the arguments of ``torch.lstm`` and its like."""
    if operation.name.endswith("_cell"):
        return 1, 1
    options = operation.options.values()
    flags = [value for value in options if isinstance(value, bool)]
    depth = next(v for v in options if isinstance(v, int) and not isinstance(v, bool))
    return depth, 1 + flags[2]  # biases, training, bidirectional


def _rank(weights: Sequence[tuple[int, ...]]) -> int:
    """Of the last depth: the weights of its input and state, without that of a projection."""
    gates = max(shape[0] for shape in weights[-3:])
    stacked = [shape for shape in weights if shape[0] == gates][-2:]
    return min(gates, sum(shape[1] for shape in stacked))
