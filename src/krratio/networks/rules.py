"""From a torch function to layer specs: one small rule per function that has one.

The tracer meets functions, not modules, so functional calls, shared weights and user-made modules
need nothing extra. A rule takes the tracer and the function's own arguments.
"""

import math
import operator
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from typing import Any, Protocol, SupportsIndex

import torch
import torch.nn.functional as F
from torch import Tensor

from krratio.errors import NonFiniteError, ShapeError
from krratio.networks.layers import (
    AveragePool,
    BatchNorm,
    Conv,
    Layer,
    Linear,
    Placement,
    Shape,
    Sum,
)
from krratio.networks.windows import Windows, adaptive_windows, pooling_windows

__all__ = ["METADATA", "MOVES", "RULES", "RefusalError", "Tracer", "why_unsupported"]

Call = Callable[..., Any]


class RefusalError(Exception):
    """A rule says why its function cannot be expressed and what to do."""


class Tracer(Protocol):
    """What a rule may ask of the tracer."""

    def shape(self, x: Tensor) -> Shape:
        """Shape of a traced tensor without the batch."""

    def emit(self, layer: Layer, *inputs: Tensor) -> Tensor:
        """Append a node and return the tensor that stands for its value."""

    def rebind(self, target: Tensor, value: Tensor) -> Tensor:
        """Let ``target`` (changed in place) stand for ``value``."""

    def is_traced(self, x: object) -> bool:
        """Whether a tensor depends on the network's input."""


def _per_mode(
    name: str, value: SupportsIndex | Sequence[int], modes: int, least: int = 1
) -> tuple[int, ...]:
    """One integer for each spatial mode, each at least ``least``."""
    given = value if isinstance(value, Sequence) else (value,)
    sizes = tuple(operator.index(v) for v in given)
    sizes = sizes * modes if len(sizes) == 1 else sizes
    if len(sizes) != modes or min(sizes) < least:
        raise ShapeError(f"its {name} {value} is not {modes} integers of at least {least}")
    return sizes


def _same_padding(kernel: Shape, dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Zeros before and after so that stride 1 keeps the size; the odd one goes after."""
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def _conv(
    tracer: Tracer,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    _constant(tracer, weight, bias)
    modes = weight.ndim - 2
    steps, strides = _per_mode("dilation", dilation, modes), _per_mode("stride", stride, modes)
    if padding == "same":
        if max(strides) > 1:
            raise RefusalError("padding='same' has no meaning with a stride; give the zeros")
        pads = _same_padding(tuple(weight.shape[2:]), steps)
    elif padding == "valid":
        pads = ((0, 0),) * modes
    elif isinstance(padding, str):
        raise RefusalError(f"padding={padding!r} is unknown; give 'same', 'valid' or integers")
    else:
        pads = tuple((p, p) for p in _per_mode("padding", padding, modes, 0))
    return tracer.emit(Conv(weight, bias, strides, pads, steps, groups), input)


def _linear(tracer: Tracer, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    _constant(tracer, weight, bias)
    return tracer.emit(Linear(weight, bias), input)


def _constant(tracer: Tracer, *weights: Tensor | None) -> None:
    if any(tracer.is_traced(w) for w in weights):
        raise RefusalError("its weight depends on the network's input; use fixed weights")


def _batch_norm(
    tracer: Tracer,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if training or running_mean is None or running_var is None:
        raise RefusalError(
            "it normalizes by the statistics of the batch, which is not linear; call model.eval() "
            "(and keep track_running_stats=True)"
        )
    if not running_var.is_meta and bool((running_var + eps <= 0).any()):
        raise NonFiniteError(
            f"a running variance plus eps = {eps} is not positive, so the scale is not finite; "
            "look at the training that produced it"
        )
    return tracer.emit(BatchNorm(running_mean, running_var, weight, bias, eps), input)


def _spatial(tracer: Tracer, x: Tensor, modes: int) -> Shape:
    """Spatial sizes, which must be as many as the function pools."""
    shape = tracer.shape(x)
    if len(shape) != modes + 1:
        raise ShapeError(f"it pools {modes} spatial modes, but {shape} comes in")
    return shape[1:]


def _avg_pool(
    modes: int,
    tracer: Tracer,
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    sizes = _spatial(tracer, input, modes)
    kernels = _per_mode("kernel_size", kernel_size, modes)
    strides = kernels
    if stride is not None and not (isinstance(stride, Sequence) and len(stride) == 0):
        strides = _per_mode("stride", stride, modes)
    paddings = _per_mode("padding", padding, modes, 0)
    if any(2 * p > k for p, k in zip(paddings, kernels, strict=True)):
        raise ShapeError(f"its padding {paddings} is more than half of its kernel_size {kernels}")
    if divisor_override == 0:
        raise RefusalError("divisor_override=0 divides by zero; give another number")
    windows = [
        pooling_windows(d, k, s, p, ceil_mode=ceil_mode, count_include_pad=count_include_pad)
        for d, k, s, p in zip(sizes, kernels, strides, paddings, strict=True)
    ]
    if divisor_override is not None:
        divisors = [float(divisor_override)] + [1.0] * (modes - 1)
        windows = [
            Windows(w.size, w.bounds, (c,) * len(w.bounds))
            for w, c in zip(windows, divisors, strict=True)
        ]
    return tracer.emit(AveragePool(tuple(windows)), input)


def _adaptive_avg_pool(
    modes: int,
    tracer: Tracer,
    input: Tensor,
    output_size: int | Sequence[int | None] | None,
) -> Tensor:
    sizes = _spatial(tracer, input, modes)
    given = output_size if isinstance(output_size, Sequence) else (output_size,)
    wanted = tuple(given) * modes if len(given) == 1 else tuple(given)
    if len(wanted) != modes:
        raise ShapeError(f"its output_size {output_size} is not one for each of {modes} modes")
    windows = [
        adaptive_windows(d, d if p is None else operator.index(p))
        for d, p in zip(sizes, wanted, strict=True)
    ]
    return tracer.emit(AveragePool(tuple(windows)), input)


def _dropout(
    tracer: Tracer,
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Tensor:
    if training and p > 0:
        raise RefusalError("it is random in train mode; call model.eval()")
    return input


def _weighted(tracer: Tracer, x: Any, y: Any, a: float, b: float) -> Tensor:
    """Return a x + b y."""
    for value, other in ((x, y), (y, x)):
        if not tracer.is_traced(value):
            if isinstance(value, Real) and value == 0:
                return tracer.emit(Sum((a if value is y else b,)), other)
            raise RefusalError(
                f"it adds a constant of type {type(value).__name__}; make it the bias of a layer"
            )
    return tracer.emit(Sum((a, b)), x, y)


def _add(tracer: Tracer, input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    return _weighted(tracer, input, other, 1.0, float(alpha))


def _sub(tracer: Tracer, input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    return _weighted(tracer, input, other, 1.0, -float(alpha))


def _rsub(tracer: Tracer, input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    return _weighted(tracer, input, other, -float(alpha), 1.0)


def _mul(tracer: Tracer, input: Any, other: Any) -> Tensor:
    value, factor = (input, other) if tracer.is_traced(input) else (other, input)
    return _scaled(tracer, value, factor)


def _div(tracer: Tracer, input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    if rounding_mode is not None:
        raise RefusalError("it rounds, which is not linear; divide without rounding_mode")
    if not isinstance(other, Real) or other == 0:
        raise RefusalError(
            "it divides by a tensor or by zero; divide by a number, or fold it into the weights"
        )
    return _scaled(tracer, input, 1 / float(other))


def _scaled(tracer: Tracer, x: Tensor, factor: Any) -> Tensor:
    if tracer.is_traced(factor):
        raise RefusalError(
            "it multiplies two tensors that depend on the input, which is not linear"
        )
    if not isinstance(factor, Real):
        raise RefusalError(
            "it multiplies by a tensor; multiply by a number, or fold it into a layer's weights"
        )
    if not math.isfinite(factor):
        raise RefusalError(f"it multiplies by {factor}; only finite factors make a tensor")
    return tracer.emit(Sum((float(factor),)), x)


def _neg(tracer: Tracer, x: Tensor) -> Tensor:
    return _scaled(tracer, x, -1.0)


def _concatenate(tracer: Tracer, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    if not all(tracer.is_traced(x) for x in tensors):
        raise RefusalError("it joins a constant to the channels; only values can be joined")
    shapes = [tracer.shape(x) for x in tensors]
    modes = len(shapes[0]) - 1
    if any(len(s) != modes + 1 or s[1:] != shapes[0][1:] for s in shapes):
        raise ShapeError(f"it joins {shapes}, which have to agree in all but the channels")
    if dim % (modes + 2) != 1 or modes < 1:
        raise RefusalError("it joins along another mode than the channels of images")
    total, first, parts = sum(shape[0] for shape in shapes), 0, []
    for x, (channels, *_) in zip(tensors, shapes, strict=True):
        place = Placement.of(channels, first=first, total=total, modes=modes, like=x)
        parts.append(tracer.emit(place, x))
        first += channels
    return tracer.emit(Sum((1.0,) * len(parts)), *parts)


def _in_place(rule: Call) -> Call:
    def changed(tracer: Tracer, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return tracer.rebind(x, rule(tracer, x, *args, **kwargs))

    return changed


T = torch.Tensor
RULES: dict[Call, Call] = {
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _conv),
    F.linear: _linear,
    F.batch_norm: _batch_norm,
    F.avg_pool1d: partial(_avg_pool, 1),
    F.avg_pool2d: partial(_avg_pool, 2),
    F.avg_pool3d: partial(_avg_pool, 3),
    F.adaptive_avg_pool1d: partial(_adaptive_avg_pool, 1),
    F.adaptive_avg_pool2d: partial(_adaptive_avg_pool, 2),
    F.adaptive_avg_pool3d: partial(_adaptive_avg_pool, 3),
    **dict.fromkeys(
        (
            F.dropout,
            F.dropout1d,
            F.dropout2d,
            F.dropout3d,
            F.alpha_dropout,
            F.feature_alpha_dropout,
        ),
        _dropout,
    ),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _concatenate),
    **dict.fromkeys((torch.add, T.add, T.__add__, T.__radd__), _add),
    **dict.fromkeys((torch.sub, T.sub, T.__sub__), _sub),
    **dict.fromkeys((T.__rsub__, torch.rsub), _rsub),
    **dict.fromkeys((torch.mul, T.mul, T.__mul__, T.__rmul__), _mul),
    **dict.fromkeys((torch.div, T.div, T.__truediv__), _div),
    **dict.fromkeys((torch.neg, T.neg, T.__neg__), _neg),
    **dict.fromkeys((T.add_, T.__iadd__), _in_place(_add)),
    **dict.fromkeys((T.sub_, T.__isub__), _in_place(_sub)),
    **dict.fromkeys((T.mul_, T.__imul__), _in_place(_mul)),
    **dict.fromkeys((T.div_, T.__itruediv__), _in_place(_div)),
    T.neg_: _in_place(_neg),
}
"""Functions that make a layer."""

MOVES: frozenset[Call] = frozenset(
    getattr(home, name)
    for home in (torch, T)
    for name in (
        "chunk contiguous flatten movedim moveaxis narrow permute reshape select split squeeze "
        "swapaxes swapdims t transpose unflatten unsqueeze view __getitem__ clone flip roll "
        "channel_shuffle pixel_shuffle tensor_split unbind view_as reshape_as detach"
    ).split()
    if hasattr(home, name)
) | {F.channel_shuffle, F.pixel_shuffle, F.pixel_unshuffle}
"""Functions that move elements and change none."""

METADATA: frozenset[str] = frozenset(
    "size dim ndimension numel nelement stride __len__ is_contiguous is_floating_point type "
    "element_size storage_offset get_device is_complex shape.__get__ ndim.__get__ dtype.__get__ "
    "device.__get__ layout.__get__ requires_grad.__get__ is_cuda.__get__ is_meta.__get__ "
    "is_sparse.__get__ is_quantized.__get__ is_mps.__get__ is_cpu.__get__ names.__get__".split()
)
"""Names of tensor methods and properties that read no values."""

_NONLINEAR = (
    "relu relu_ relu6 leaky_relu prelu rrelu gelu silu mish sigmoid logsigmoid tanh softplus "
    "softsign softshrink hardshrink tanhshrink elu elu_ celu selu hardtanh hardswish hardsigmoid "
    "threshold glu abs square pow __pow__ exp log sqrt rsqrt maximum minimum clamp max min amax "
    "amin where scaled_dot_product_attention bilinear matmul __matmul__ einsum bmm reciprocal "
    "__rtruediv__ __rdiv__ sign round floor ceil"
).split()


def why_unsupported(name: str) -> str:
    """Say why a function (by its qualified name) has no rule and what to do."""
    short = name.rsplit(".", 1)[-1]
    if short == "pad":
        return (
            "it pads outside a convolution or by another mode than zeros; "
            "use padding= with padding_mode='zeros'"
        )
    if short in _NONLINEAR or "pool" in short or "norm" in short or "softmax" in short:
        return (
            "it is not linear, so no single tensor represents the network; "
            "replace it by nn.Identity() or tensorize the linear part alone"
        )
    return (
        "it has no rule here; write it with convolutions, average pooling, linear layers, "
        "BatchNorm, sums, concatenations of channels and reshapes"
    )
