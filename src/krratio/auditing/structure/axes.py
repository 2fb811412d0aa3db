"""Which axis the channels lie on, as far as it can be told."""

import math

from krratio.auditing.walking.kinds import Role, role_of
from krratio.auditing.walking.operations import Operation

__all__ = ["ROWS", "axis_after"]

Shape = tuple[int, ...]

ROWS = 0
"""Channels that were flattened into the first axis, with the images."""


def axis_after(operation: Operation, before: Shape, after: Shape, axis: int | None) -> int | None:
    """Axis of the channels behind an operation; None where it cannot be told.

    Parameters
    ----------
    operation
        No layer.
    before, after
        Shapes of what it reads and puts out.
    axis
        Of the channels in what it reads.
    """
    if axis is None or axis == ROWS:
        return axis if before == after else None
    if role_of(operation.name) is not Role.MOVE:
        return axis if len(before) == len(after) else None
    if operation.name in ("transpose", "swapaxes", "permute", "t"):
        order = _order(operation, len(before))
        return order.index(axis) if order is not None and axis in order else None
    if len(before) == len(after) and before[axis] >= after[axis]:
        others = [b for i, b in enumerate(before) if i != axis]
        if others == [a for i, a in enumerate(after) if i != axis] or before == after:
            return axis  # a part of the channels
    return _reshaped(before, after, axis)


def _order(operation: Operation, size: int) -> list[int] | None:
    order = list(range(size))
    if operation.name == "t":
        return order[::-1]
    if operation.name == "permute":
        dims = operation.options.get(1)
        return [d % size for d in dims] if isinstance(dims, (list, tuple)) else None
    one, other = operation.options.get(1), operation.options.get(2)
    if not isinstance(one, int) or not isinstance(other, int):
        return None
    order[one], order[other] = order[other], order[one]
    return order


def _reshaped(before: Shape, after: Shape, axis: int) -> int | None:
    """Behind a view: the same places before it and behind it, or all in one with the images."""
    for i, size in enumerate(after):
        if size == before[axis] and math.prod(after[:i]) == math.prod(before[:axis]):
            return i
    last = before[-1]
    if after == (math.prod(before) // last, last) and axis < len(before) - 1:
        return ROWS
    return None
