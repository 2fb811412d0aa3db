"""Tensors that lie in the same memory: what is written into one is read from the others."""

from collections import defaultdict
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Memory", "Write"]


@dataclass(frozen=True)
class Write:
    """A value written in place into a tensor that shares memory.

    Attributes
    ----------
    value
        Number of what was written.
    whole
        Whether all of the tensor that reads it was written.
    """

    value: int
    whole: bool


class Memory:
    """Which tensors share memory, and writes that those others have not seen yet."""

    def __init__(self) -> None:
        self._sharing: dict[int, dict[int, Tensor]] = defaultdict(dict)
        self._unread: dict[int, list[Write]] = {}

    def keep(self, tensor: Tensor) -> None:
        """Keep a tensor alive, since tensors and memory are known by their addresses."""
        self._sharing[_address(tensor)][id(tensor)] = tensor

    def wrote(self, tensor: Tensor, value: int) -> None:
        """Note that a tensor was written in place, and what."""
        for key, other in self._sharing[_address(tensor)].items():
            if other is not tensor and _overlap(tensor, other):
                self._unread.setdefault(key, []).append(Write(value, _covers(tensor, other)))

    def read(self, tensor: Tensor) -> list[Write]:
        """What was written into a tensor through others since it was last asked for."""
        return self._unread.pop(id(tensor), [])


def _address(tensor: Tensor) -> int:
    try:
        return int(tensor.untyped_storage()._cdata)
    except NotImplementedError:  # sparse: it shares with no other
        return id(tensor)


def _ends(tensor: Tensor) -> tuple[int, int]:
    """First and last place in memory."""
    first = int(tensor.storage_offset())
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return first, first + sum((int(size) - 1) * int(step) for size, step in steps)


def _overlap(one: Tensor, other: Tensor) -> bool:
    """Whether they may have a place in common; what lies between each other's places counts."""
    (a, b), (c, d) = _ends(one), _ends(other)
    return a <= d and c <= b


def _covers(written: Tensor, other: Tensor) -> bool:
    """Whether every place of the other one was written."""
    (a, b), (c, d) = _ends(written), _ends(other)
    return a <= c and d <= b and written.numel() == b - a + 1
