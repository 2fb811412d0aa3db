"""What a network is run on: shapes without the batch, or tensors where a shape says too little."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from krratio.errors import ShapeError

__all__ = ["Input", "Inputs", "arguments", "described", "inputs_of", "on_meta", "shapes_of"]

Shape = tuple[int, ...]
Input = Shape | Tensor | Mapping[str, Any]
"""A shape without the batch, a tensor with it, or a dict of both."""
Inputs = Sequence[Input] | Mapping[str, Input]
"""Arguments by position, or by name."""

_EXAMPLE = (
    "a tuple of positive integers without the batch is needed, such as (3, 224, 224), or one for "
    "each input, or a tensor with its batch"
)


_LARGEST = 2**60 - 1  # entries, of 8 bytes each


def inputs_of(given: Any) -> Inputs:
    """Arguments of a forward, checked: a list by position, a dict by name.

    Raises
    ------
    ShapeError
        Something is neither a tensor, nor a tuple of positive integers, nor a dict of them, or is
        larger than any tensor.
    """
    if isinstance(given, Mapping):
        return {name: _checked(part, f"input {name!r}") for name, part in given.items()}
    if isinstance(given, Tensor):
        return [given]
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ShapeError(f"input shape {given!r}: {_EXAMPLE}")
    single = len(given) == 0 or isinstance(given[0], int)
    parts: list[Any] = [given] if single else list(given)
    return [_checked(part, "input shape") for part in parts]


def shapes_of(input_shape: Shape | Sequence[Shape]) -> list[Shape]:
    """One shape for each input, checked; no tensors and no names."""
    found = inputs_of(input_shape) if isinstance(input_shape, Sequence) else None
    shapes = [part for part in found or () if isinstance(part, tuple)]
    if found is None or len(shapes) != len(found):
        raise ShapeError(
            f"input shape {_said(input_shape)}: a tuple such as (3, 224, 224), or one for each "
            "input, is needed"
        )
    return shapes


def arguments(
    inputs: Inputs, make: Callable[[Shape | Tensor], Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments, each shape and tensor replaced by what is made of it."""
    if isinstance(inputs, Mapping):
        return (), {name: _made(part, make) for name, part in inputs.items()}
    return tuple(_made(part, make) for part in inputs), {}


def on_meta(dtype: torch.dtype) -> Callable[[Shape | Tensor], Tensor]:
    """Make empty tensors on ``device="meta"``, of shapes with a batch of one and this dtype."""

    def make(part: Shape | Tensor) -> Tensor:
        if isinstance(part, Tensor):
            return torch.empty_like(part, device="meta", requires_grad=False)
        return torch.empty((1, *part), dtype=dtype, device="meta")

    return make


def described(inputs: Inputs) -> str:
    """Shapes of all inputs, for a message."""
    if isinstance(inputs, Mapping):
        return ", ".join(f"{name}={_said(part)}" for name, part in inputs.items())
    return ", ".join(map(_said, inputs))


def _checked(part: Any, what: str) -> Input:
    if isinstance(part, Tensor):
        return part
    if isinstance(part, Mapping):
        return {name: _checked(value, f"{what}[{name!r}]") for name, value in part.items()}
    whole = isinstance(part, Sequence) and all(
        isinstance(d, int) and not isinstance(d, bool) and d > 0 for d in part
    )
    if not whole or not part:
        raise ShapeError(f"{what} {part!r}: {_EXAMPLE}")
    if math.prod(part) > _LARGEST:
        raise ShapeError(
            f"{what} {part!r}: fewer than 2**60 entries are needed, as torch counts them; give "
            "smaller sizes"
        )
    return tuple(map(int, part))


def _made(part: Input, make: Callable[[Shape | Tensor], Any]) -> Any:
    if isinstance(part, Mapping):
        return {name: _made(value, make) for name, value in part.items()}
    return make(part)


def _said(part: Any) -> str:
    if isinstance(part, Mapping):
        return "{" + ", ".join(f"{name}: {_said(value)}" for name, value in part.items()) + "}"
    if isinstance(part, Tensor):
        return f"{tuple(part.shape)} {str(part.dtype).removeprefix('torch.')}"
    return repr(part)
