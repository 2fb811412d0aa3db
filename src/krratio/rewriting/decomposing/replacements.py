"""From the parts of a block to torch modules with the geometry of the layer they stand for."""

from collections import OrderedDict

import torch
from torch import nn

from krratio.rewriting.decomposing.parts import Part
from krratio.theory.fold import Conv

__all__ = ["replacement"]


def replacement(conv: Conv, parts: tuple[Part, ...]) -> nn.Sequential:
    """The parts as convolutions, one behind the other.

    Stride, padding and dilation of a mode go to the part that walks along it, and padding of any
    kind commutes with the others, which have no bias. The bias goes to the last. Device, dtype,
    training mode and what is trained are those of ``conv``.
    """
    named = OrderedDict(
        (part.name, _convolution(conv, part, bias=part is parts[-1])) for part in parts
    )
    return nn.Sequential(named).train(conv.training)


def _convolution(conv: Conv, part: Part, *, bias: bool) -> nn.Module:
    g, out, _, *window = part.weight.shape
    made: Conv = nn.utils.skip_init(  # draws no random numbers
        type(conv),
        part.channels,
        g * out,
        tuple(window),
        stride=_on(part.modes, conv.stride, 1),
        padding=conv.padding if isinstance(conv.padding, str) else _on(part.modes, conv.padding, 0),
        dilation=_on(part.modes, conv.dilation, 1),
        groups=g * out if part.depthwise else g,
        bias=bias and conv.bias is not None,
        padding_mode=conv.padding_mode if part.modes else "zeros",
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    with torch.no_grad():
        made.weight.copy_(part.weight.reshape(made.weight.shape))
        made.weight.requires_grad_(conv.weight.requires_grad)
        if made.bias is not None and conv.bias is not None:
            made.bias.copy_(conv.bias)
            made.bias.requires_grad_(conv.bias.requires_grad)
    return made


def _on(modes: tuple[int, ...], values: tuple[int, ...], other: int) -> tuple[int, ...]:
    return tuple(value if j in modes else other for j, value in enumerate(values))
