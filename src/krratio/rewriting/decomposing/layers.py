"""The convolutions of a network, and what stands against decomposing each."""

import difflib
import math
from collections import Counter
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from krratio.errors import NonFiniteError
from krratio.rewriting.errors import DecomposeError

__all__ = ["convolutions", "obstacle", "require_values", "tied"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def convolutions(
    model: nn.Module, layers: Iterable[str] | None
) -> list[tuple[str, nn.Module, bool]]:
    """Name, module and whether it is asked for, of each convolution, in the network's order.

    What has a weight, channels and a kernel size counts as one, whoever wrote it.

    Raises
    ------
    DecomposeError
        ``layers`` is no list of names of convolutions.
    """
    found = [(n, m) for n, m in model.named_modules() if _convolves(m)]
    if layers is None:
        return [(name, conv, True) for name, conv in found]
    if isinstance(layers, str):
        raise DecomposeError(f"layers={layers!r}: a list of names is needed, such as [{layers!r}].")
    every = dict(model.named_modules(remove_duplicate=False))
    asked = {id(_named(every, name)) for name in layers}
    return [(name, conv, id(conv) in asked) for name, conv in found]


def _convolves(module: nn.Module) -> bool:
    channels = (getattr(module, field, None) for field in ("in_channels", "out_channels"))
    alike = hasattr(module, "weight") and hasattr(module, "kernel_size")
    return isinstance(module, _ConvNd) or (alike and all(isinstance(c, int) for c in channels))


def _named(every: dict[str, nn.Module], name: str) -> nn.Module:
    names = [n for n, module in every.items() if _convolves(module)]
    if name in names:
        return every[name]
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.0)
    what = f"is a {type(every[name]).__name__}" if name in every else "is no layer"
    raise DecomposeError(
        f"layers: {name!r} {what}; "
        + (f"the nearest convolutions are {', '.join(map(repr, near))}." if near else "none is.")
    )


def tied(model: nn.Module) -> set[int]:
    """The ids of parameters that several modules hold, or one twice."""
    owners = Counter(
        id(p) for module in model.modules() for p in module._parameters.values() if p is not None
    )
    return {parameter for parameter, count in owners.items() if count > 1}


def obstacle(conv: nn.Module, shared: set[int]) -> str:
    """Why a convolution cannot be decomposed, whatever the method; empty if it can.

    Where it is empty, ``conv`` is an ``nn.Conv1d``, ``nn.Conv2d`` or ``nn.Conv3d``.
    """
    if isinstance(conv, _ConvTransposeNd):
        return "a transposed convolution"
    if parametrize.is_parametrized(conv):
        return "its weights are parametrized"
    if any(is_lazy(p) for p in conv.parameters(recurse=False)):
        return "its weight has no shape before the first forward"
    if not isinstance(conv, _ConvNd) or type(conv) not in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        return f"a {type(conv).__name__}, no plain convolution of torch"
    if conv._parameters.get("weight") is None:
        return "its weight is computed from other parameters"
    if any(getattr(conv, hooks) for hooks in _HOOKS):
        return "it has hooks"
    if "forward" in vars(conv):
        return "its forward was replaced"
    if any(id(p) in shared for p in conv._parameters.values()):
        return "its weight or bias is a parameter of another layer too"
    if not conv.weight.is_floating_point():
        return f"its weight is of {conv.weight.dtype}, not real"
    return _shape_obstacle(conv)


def _shape_obstacle(conv: _ConvNd) -> str:
    if math.prod(conv.kernel_size) == 1:
        return "a 1×1 convolution: no window to separate from the channels"
    if conv.groups == conv.in_channels == conv.out_channels:
        return "a depthwise convolution: one channel in and out of each group, nothing to compress"
    return ""


def require_values(conv: _ConvNd, name: str) -> None:
    """Refuse weights that cannot be read.

    Raises
    ------
    DecomposeError
        They lie on ``device="meta"``.
    NonFiniteError
        They hold NaN or infinity.
    """
    if conv.weight.is_meta:
        raise DecomposeError(
            f"the weight of {name!r} lies on device='meta'; decomposing needs its values: load "
            "them first."
        )
    if not bool(torch.isfinite(conv.weight).all()):
        bad = int((~torch.isfinite(conv.weight)).sum())
        raise NonFiniteError(
            f"the weight of {name!r} holds NaN or infinity in {bad} of {conv.weight.numel()} "
            "entries; leave the layer out with layers=, or repair it."
        )
