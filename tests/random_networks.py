"""Random linear networks, sizes unequal, drawn by hypothesis over everything the kit accepts."""

import itertools
import math

import torch
from hypothesis import strategies as st
from torch import nn

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
ADAPTIVE = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
DROPOUT = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
SIZES = {
    1: [(11,), (16,), (23,)],
    2: [(7, 9), (10, 8), (11, 6)],
    3: [(4, 6, 5), (7, 5, 6), (5, 4, 7)],
}


class Residual(nn.Module):
    """x -> branch(x) + shortcut(x), with a multiple."""

    def __init__(self, branch, shortcut, factor=1.0):
        super().__init__()
        self.branch, self.shortcut, self.factor = branch, shortcut, factor

    def forward(self, x):
        return self.branch(x) + self.factor * self.shortcut(x)


class Joined(nn.Module):
    """What both parts make of x, one behind the other in the channels."""

    def __init__(self, one, other):
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x):
        return torch.cat([self.one(x), self.other(x)], 1)


class ShuffleByHand(nn.Module):
    """The channel shuffle as user code writes it: view, transpose, reshape."""

    def __init__(self, groups):
        super().__init__()
        self.groups = groups

    def forward(self, x):
        n, channels, *sizes = x.shape
        split = x.view(n, self.groups, channels // self.groups, *sizes)
        return split.transpose(1, 2).reshape(n, channels, *sizes)


def divisors(n):
    return [g for g in range(1, n + 1) if n % g == 0]


@st.composite
def convs(draw, shape):
    spatial, channels = len(shape) - 1, shape[0]
    groups = draw(st.sampled_from(divisors(channels)))
    outputs = groups * draw(st.integers(1, 3))
    kernel = tuple(draw(st.integers(1, min(3, d))) for d in shape[1:])
    style = draw(st.sampled_from(["plain", "same", "valid", "strided"]))
    dilation = tuple(
        draw(st.integers(1, 2)) if 2 * (k - 1) + 1 <= d else 1
        for k, d in zip(kernel, shape[1:], strict=True)
    )
    stride, padding = 1, 0
    if style in ("same", "valid"):
        padding = style
    elif style == "strided":
        stride = tuple(draw(st.integers(1, 3)) for _ in kernel)
        padding = tuple(draw(st.integers(0, 2)) for _ in kernel)
    return CONV[spatial](
        channels,
        outputs,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
    )


@st.composite
def pools(draw, shape):
    spatial = len(shape) - 1
    if draw(st.booleans()):
        sizes = tuple(draw(st.integers(1, d)) for d in shape[1:])
        return ADAPTIVE[spatial](sizes)
    kernel = tuple(draw(st.integers(1, min(3, d))) for d in shape[1:])
    options = {
        "stride": tuple(draw(st.integers(1, 3)) for _ in kernel),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel),
        "ceil_mode": draw(st.booleans()),
        "count_include_pad": draw(st.booleans()),
    }
    if spatial > 1 and draw(st.booleans()):
        options["divisor_override"] = draw(st.integers(1, 5))
    return POOL[spatial](kernel, **options)


@st.composite
def norms(draw, shape):
    norm = NORM[max(1, len(shape) - 1)](shape[0], affine=draw(st.booleans()))
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.2, 3)
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm


@st.composite
def residuals(draw, shape):
    branch = draw(convs(shape))
    after = shape_after(branch, shape)
    if after[1:] == shape[1:] and draw(st.booleans()):
        return Joined(branch, nn.Identity())
    if after == shape and draw(st.booleans()):
        return Residual(branch, nn.Identity(), draw(st.sampled_from([1.0, -0.5])))
    twin = CONV[len(shape) - 1](
        branch.in_channels,
        branch.out_channels,
        branch.kernel_size,
        stride=branch.stride,
        padding=branch.padding,
        dilation=branch.dilation,
    )
    return Residual(branch, twin, 2.0)


def shape_after(layer, shape):
    with torch.no_grad():
        return tuple(layer.eval()(torch.zeros(1, *shape)).shape[1:])


@st.composite
def grid_layers(draw, shape, residual):
    kinds = ["conv", "conv", "pool", "norm", "identity", "shuffle"] + ["residual"] * residual
    match draw(st.sampled_from(kinds)):
        case "conv":
            return draw(convs(shape))
        case "pool":
            return draw(pools(shape))
        case "norm":
            return draw(norms(shape))
        case "shuffle":
            groups = draw(st.sampled_from(divisors(shape[0])))
            by_hand = draw(st.booleans())
            return ShuffleByHand(groups) if by_hand else nn.ChannelShuffle(groups)
        case "residual":
            return draw(residuals(shape))
    return draw(st.sampled_from([nn.Identity(), nn.Dropout(0.3), DROPOUT[len(shape) - 1](0.3)]))


@st.composite
def networks(draw, *, residual=True):
    """(network in float64 and eval mode, input shape)."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    spatial = draw(st.sampled_from([0, 1, 2, 2, 3]))
    if spatial == 0:
        shape = (draw(st.integers(1, 9)),)
        layers = [draw(norms(shape))] if draw(st.booleans()) else []
        return nn.Sequential(*layers, *draw(heads(shape[0]))).double().eval(), shape
    input_shape = shape = (draw(st.integers(1, 4)), *draw(st.sampled_from(SIZES[spatial])))
    layers = []
    for _ in range(draw(st.integers(1, 4))):
        layer = draw(grid_layers(shape, residual))
        try:
            after = shape_after(layer, shape)
        except RuntimeError:  # the window does not fit what earlier layers left
            continue
        layers.append(layer)
        shape = after
    if draw(st.booleans()):
        layers = [nn.Sequential(*layers)]
    if draw(st.booleans()):
        layers += [nn.Flatten(), *draw(heads(math.prod(shape)))]
    return nn.Sequential(*layers).double().eval(), input_shape


@st.composite
def heads(draw, features):
    widths = [features, *draw(st.lists(st.integers(1, 7), min_size=1, max_size=3))]
    pairs = itertools.pairwise(widths)
    layers = [nn.Linear(a, b, bias=draw(st.booleans())) for a, b in pairs]
    if draw(st.booleans()):
        layers.insert(1, draw(norms((widths[1],))))
    return layers
