"""Whether a rewritten network is the same function: by what it computes, and by what comes out."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from krratio.auditing.walking.inputs import Inputs, arguments
from krratio.auditing.walking.kinds import Role, role_of
from krratio.auditing.walking.operations import Operation, Walk
from krratio.auditing.walking.recorder import tensors

__all__ = ["Trials", "difference", "doubled", "other_constants"]

Shape = tuple[int, ...]

_SCALES = (1.0, 300.0)  # of random inputs, so that thresholds and saturation show
_IMAGES = 2


class Trials:
    """Inputs to try networks on, the same ones each time.

    Parameters
    ----------
    inputs
        Shapes are filled with random numbers, normal ones and uniform positive ones of a larger
        scale; tensors are taken as they are.
    """

    def __init__(self, inputs: Inputs) -> None:
        self.arguments = [arguments(inputs, _filling(scale)) for scale in _SCALES]

    def outputs(self, model: nn.Module) -> list[Tensor]:
        """All tensors that a network returns, trial by trial."""
        found: list[Tensor] = []
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for args, kwargs in self.arguments:
                torch.manual_seed(0)
                found += [tensor.clone() for tensor in tensors(model(*args, **kwargs))]
        return found


def difference(ones: Iterable[Tensor], others: Iterable[Tensor]) -> float:
    """Largest difference of two lists of outputs, each over its own largest value."""
    return max(map(_apart, ones, others), default=0.0)


def _apart(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        return math.inf
    if not one.is_floating_point() or one.numel() == 0:
        return 0.0 if torch.equal(one, other) else math.inf
    finite = one.isfinite()
    if not torch.equal(finite, other.isfinite()):
        return math.inf
    apart = (one - other)[finite].abs()
    largest = one[finite].abs()
    if apart.numel() == 0 or float(apart.max()) == 0:
        return 0.0
    return float(apart.max()) / max(float(largest.max()), 1e-300)


def doubled(inputs: Inputs) -> Inputs:
    """The same inputs with floating-point tensors in float64, on the CPU."""

    def double(part: Shape | Tensor) -> Shape | Tensor:
        if not isinstance(part, Tensor):
            return part
        part = part.detach().cpu()
        return part.double() if part.is_floating_point() else part

    args, kwargs = arguments(inputs, double)
    return kwargs or list(args)


def _filling(scale: float) -> Callable[[Shape | Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn if scale == 1 else torch.rand

    def fill(part: Shape | Tensor) -> Tensor:
        if isinstance(part, Tensor):
            return part.clone()
        return scale * draw(_IMAGES, *part, generator=generator, dtype=torch.float64)

    return fill


def other_constants(before: Walk, after: Walk) -> str:
    """What two walks compute differently besides sizes; empty if nothing.

    A forward may read the number of channels in Python and divide by its root: that shows as
    another constant, and in no shape.
    """
    one, other = _computing(before), _computing(after)
    if [role_of(o.name) for o in one] != [role_of(o.name) for o in other]:
        return "the network takes another way with fewer channels"
    for a, b in zip(one, other, strict=True):
        if role_of(a.name) is not Role.MOVE and list(_numbers(a)) != list(_numbers(b)):
            return f"{a.name} in '{a.module}' depends on the number of channels"
    return ""


def _computing(walk: Walk) -> list[Operation]:
    return [o for o in walk.operations if role_of(o.name) is not Role.BATCH_NORM]


def _numbers(operation: Operation) -> Iterator[tuple[Any, Any]]:
    for key, value in operation.options.items():
        if isinstance(value, (int, float, list, tuple)) and not isinstance(value, bool):
            yield key, value
