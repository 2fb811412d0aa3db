"""The block designs of :mod:`krratio.networks.blocks` at comparable sizes, with their dimensions.

Behind every block stand average pooling to 2 × 2 positions and a linear layer with ten outputs.
What is known by formula of the linear network is written here beside the sizes; chapter 08 derives
it, under conditions that are checked here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from krratio.networks import blocks
from krratio.theory import counts

__all__ = ["OUTPUTS", "SIZES", "Design", "at_ratio", "designs", "linear_network"]

SIZES = (6, 6)
"""Spatial sizes that enter a block."""

OUTPUTS = 10
"""Outputs T of the linear layer behind it."""

_POOL = 3
_P = OUTPUTS * math.prod(size // _POOL for size in SIZES)  # positions times outputs
_KERNEL, _L = (3, 3), 9
_WIDE, _L_WIDE = (5, 5), 25  # of ConvNeXt, 7 × 7 in the publication

Activation = Callable[[], nn.Module] | None
Build = Callable[..., nn.Module]  # activation, norm -> the block


@dataclass(frozen=True)
class Design:
    """A block design at one size.

    Attributes
    ----------
    name
        Of the design, by the network that made it known.
    source
        Where it was published.
    C, K
        Channels that enter and leave the block.
    dimension
        Of the linear network's class, by the formula of chapter 08.
    build
        activation, norm -> the block.
    """

    name: str
    source: str
    C: int
    K: int
    dimension: int
    build: Build

    def block(self, activation: Activation = None, *, norm: bool = False) -> nn.Module:
        """Return the block; linear without an activation."""
        return self.build(activation=activation, norm=norm)


def designs(width: int = 1) -> list[Design]:
    """All twelve designs; ``width``, 1 or 2, multiplies the channels, and groups stay.

    K/R is that of the publication: 4 for the ResNet bottleneck and ShuffleNet V1, 2 for ResNeXt
    32×4d and for MobileNet V1 where it widens, 1/6 for MobileNet V2 with t = 6.
    """
    w = width
    return [
        _standard(8 * w, 16 * w),
        _tucker(16 * w, 6 * w, 4 * w, 16 * w),
        _cp(16 * w, 4 * w, 16 * w),
        _separable(16 * w, 4 * w, 16 * w),
        _mobilenet_v1(8 * w, 16 * w),
        _mobilenet_v2(4 * w, 6),
        _resnet(16 * w, 4 * w),
        _resnext(16 * w, 8 * w, 4),
        _shufflenet_v1(16 * w, 4 * w, 2),
        _shufflenet_v2(16 * w),
        _squeezenet(16 * w, 2 * w, 16 * w),
        _convnext(4 * w, 4),
    ]


def at_ratio(ratio: float) -> list[Design]:
    """Return the designs whose K/R is free, at that ratio and R = 4 (24 for inverted residuals).

    Those that cannot have it are left out: an inverted residual has K/R = 1/t.
    """
    K = round(4 * ratio)
    found = [_tucker(16, 6, 4, K), _cp(16, 4, K), _mobilenet_v1(4, K)]
    if ratio >= 1:
        found += [_resnet(K, 4), _shufflenet_v1(K, 4, 2), _convnext(4, K // 4)]
    if ratio <= 1:
        t = round(1 / ratio)
        found.append(_mobilenet_v2(24 // t, t))
    return found


def linear_network(design: Design) -> nn.Module:
    """Return block -> average pooling -> linear layer on ``device="meta"``, no activation."""
    head = nn.Linear(design.K * _P // OUTPUTS, OUTPUTS, bias=False)
    return nn.Sequential(design.block(), nn.AvgPool2d(_POOL), nn.Flatten(), head).to("meta")


def _require(name: str, **sizes: int) -> None:
    """Refuse sizes that do not ascend: the formula of the design has that condition."""
    if list(sizes.values()) != sorted(sizes.values()):
        given = ", ".join(f"{key}={value}" for key, value in sizes.items())
        raise ValueError(f"{name}: {given}; the formula needs {' <= '.join(sizes)}.")


def _standard(C: int, K: int) -> Design:
    d = counts.cnn(l=(C, _L), K=K, P=_P).intrinsic
    return Design("standard", "VGG, 2014", C, K, d, partial(blocks.standard, C, K, _KERNEL))


def _tucker(C: int, first: int, R: int, K: int) -> Design:
    d = counts.tucker(l=(C, _L), R_j=(first, None), R=R, K=K, P=_P).intrinsic
    build = partial(blocks.tucker_bottleneck, C, K, _KERNEL, ranks=(first, R))
    return Design("Tucker", "Kim et al., 2015", C, K, d, build)


def _cp(C: int, R: int, K: int) -> Design:
    d = counts.cp(l=(C, _L), R=R, K=K, P=_P).intrinsic
    build = partial(blocks.cp_bottleneck, C, K, _KERNEL, R=R)
    return Design("CP", "Lebedev et al., 2014", C, K, d, build)


def _separable(C: int, r: int, K: int) -> Design:
    d = counts.tt(n=(C * _KERNEL[0], _KERNEL[1], _P), r=(r, K)).intrinsic
    build = partial(blocks.separable_chain, C, K, _KERNEL, ranks=(r,))
    return Design("separable (TT)", "Jaderberg et al., 2014", C, K, d, build)


def _mobilenet_v1(C: int, K: int) -> Design:
    """Every input channel a term of its own; K < C bounds the rank of what reads the terms."""
    last = min(C, K, _P)
    d = C * (_L - 1) + last * (C + _P - last)
    build = partial(blocks.depthwise_separable, C, K, _KERNEL)
    return Design("MobileNet V1", "2017", C, K, d, build)


def _mobilenet_v2(C: int, t: int) -> Design:
    """CP less the gauge of the skip; with terms enough any convolution, skip included."""
    _require("MobileNet V2", C=C, P=_P)
    any_kernel = counts.cnn(l=(C, _L), K=C, P=_P).intrinsic
    gauge = min(t * C, C * C)  # of the skip: pointwise C × C matrices of rank-one terms
    d = min(C * _P + counts.cp_dimension((C, _L, C), t * C) - gauge, any_kernel)
    build = partial(blocks.inverted_residual, C, C, _KERNEL, expansion=t)
    return Design("MobileNet V2", "2018", C, C, d, build)


def _resnet(C: int, R: int) -> Design:
    _require("ResNet", R=R, C=C, P=_P)
    d = C * _P + 2 * C * R + R * R * _L - 3 * R * R
    build = partial(blocks.resnet_bottleneck, C, _KERNEL, R=R)
    return Design("ResNet", "2015", C, C, d, build)


def _resnext(C: int, R: int, groups: int) -> Design:
    _require("ResNeXt", R=R, C=C, P=_P)
    d = C * _P + 2 * C * R + R * R * _L // groups - 3 * R * R // groups
    build = partial(blocks.resnext, C, _KERNEL, R=R, groups=groups)
    return Design("ResNeXt", "2016", C, C, d, build)


def _shufflenet_v1(C: int, R: int, groups: int) -> Design:
    """A channel has a gauge of the skip if the shuffle leaves it in its group."""
    _require("ShuffleNet V1", C=C, P=_P)
    each = R // groups
    kept = sum((b * groups + a) // each == a for a in range(groups) for b in range(each))
    d = C * _P + 2 * C * R // groups + R * _L - 2 * R - kept
    build = partial(blocks.shufflenet_v1, C, _KERNEL, R=R, groups=groups)
    return Design("ShuffleNet V1", "2017", C, C, d, build)


def _shufflenet_v2(C: int) -> Design:
    half = C // 2
    d = half * _P + counts.cp(l=(half, _L), R=half, K=half, P=_P).intrinsic
    return Design("ShuffleNet V2", "2018", C, C, d, partial(blocks.shufflenet_v2, C, _KERNEL))


def _squeezenet(C: int, squeeze: int, K: int) -> Design:
    """The pointwise half sets the centre of the window, the spatial half has the rest of it."""
    _require("SqueezeNet", squeeze=squeeze, half=K // 2, P=_P)
    _require("SqueezeNet", squeeze=squeeze, C=C)
    others = squeeze * (_L - 1)
    r = min(K // 2, others, _P)
    d = squeeze * (C - squeeze) + squeeze * _P + r * (_P + others - r)
    build = partial(blocks.fire, C, K, _KERNEL, squeeze=squeeze)
    return Design("SqueezeNet", "fire module, 2016", C, K, d, build)


def _convnext(C: int, t: int) -> Design:
    """The two pointwise layers are one, C × C, whatever lies between them."""
    _require("ConvNeXt", C=C, P=_P)
    d = C * _P + C * C + C * _L_WIDE - 2 * C
    return Design("ConvNeXt", "2022", C, C, d, partial(blocks.convnext, C, _WIDE, expansion=t))
