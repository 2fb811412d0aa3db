"""The map of each layer kind modulo a prime, and its derivative by the product rule.

One row per layer kind in each table. Values are residues with the batch first; a graph comes here
with residues for weights. The field ``variance`` of a BatchNorm then holds the *inverse deviation*,
a generic number like any other. With ``bias=False`` only the linear part is run.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from krratio.networks.layers import (
    AveragePool,
    BatchNorm,
    Conv,
    Layer,
    Linear,
    Placement,
    Reindex,
    Shape,
    Sum,
)
from krratio.networks.windows import Windows
from krratio.theory.modular.field import Field

__all__ = ["BACKWARD", "FORWARD", "Arithmetic", "Derivative", "pool_matrix"]


@dataclass(frozen=True)
class Arithmetic:
    """A field, and whether constant terms belong to the function."""

    field: Field
    bias: bool


Derivative = tuple[tuple[Tensor, ...], dict[str, Tensor]]
"""One cotangent per input, and per weight field the gradients, one per member of the batch."""


def _windows(layer: Conv, x: Tensor) -> Int[Tensor, "n g C_per_group *l_and_m"]:
    """Patches as a view: channels of each group, offsets in the window, positions."""
    pads = [p for pair in reversed(layer.padding) for p in pair]
    x = F.pad(x, pads)
    modes = len(layer.kernel)
    for j, (size, stride, dilation) in enumerate(
        zip(layer.kernel, layer.stride, layer.dilation, strict=True)
    ):
        x = x.unfold(j + 2, dilation * (size - 1) + 1, stride)[..., ::dilation]
    order = [0, 1, *range(2 + modes, 2 + 2 * modes), *range(2, 2 + modes)]
    x = x.permute(order)
    return x.reshape(len(x), layer.groups, -1, *x.shape[2:])


def _patches(layer: Conv, x: Tensor) -> Int[Tensor, "n g volume m"]:
    windows = _windows(layer, x)
    positions = math.prod(windows.shape[3 + len(layer.kernel) :])
    return windows.reshape(len(x), layer.groups, -1, positions)


def _matrix(layer: Conv) -> Int[Tensor, "g K_per_group volume"]:
    return layer.weight.reshape(layer.groups, layer.weight.shape[0] // layer.groups, -1)


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 2))


def _conv(by: Arithmetic, layer: Conv, x: Tensor) -> Tensor:
    shape = layer.output_shape(tuple(x.shape[1:]))
    y = by.field.matmul(_matrix(layer), _patches(layer, x)).reshape(len(x), *shape)
    if by.bias and layer.bias is not None:
        y = by.field.add(y, _per_channel(layer.bias, y))
    return y


def _conv_back(by: Arithmetic, layer: Conv, y: Tensor, x: Tensor) -> Derivative:
    flat = y.reshape(len(y), layer.groups, y.shape[1] // layer.groups, -1)
    slopes = by.field.matmul(flat, _patches(layer, x).transpose(-1, -2))
    gradients = {"weight": slopes.reshape(len(y), *layer.weight.shape)}
    if layer.bias is not None:
        gradients["bias"] = by.field.sum(y.reshape(len(y), y.shape[1], -1), 2)
    spread = by.field.matmul(_matrix(layer).transpose(-1, -2), flat)
    return (_fold(by.field, layer, spread, tuple(x.shape[1:])),), gradients


def _fold(field: Field, layer: Conv, spread: Tensor, shape: Shape) -> Tensor:
    """Add every window's cotangent where the window lay; what lay in the padding is dropped."""
    sizes = layer.output_shape(shape)[1:]
    spread = spread.reshape(len(spread), shape[0], *layer.kernel, *sizes)
    padded = [d + sum(pad) for d, pad in zip(shape[1:], layer.padding, strict=True)]
    total = spread.new_zeros(len(spread), shape[0], *padded)
    for offset in itertools.product(*map(range, layer.kernel)):
        seen, part = total, spread
        for j, (a, m) in enumerate(zip(offset, sizes, strict=True)):
            stride, begin = layer.stride[j], a * layer.dilation[j]
            seen = seen.narrow(j + 2, begin, (m - 1) * stride + 1)
            seen = seen[(slice(None),) * (j + 2) + (slice(None, None, stride),)]
            part = part.select(2, a)
        seen.copy_(field.add(seen, part))
    for j, (d, pad) in enumerate(zip(shape[1:], layer.padding, strict=True)):
        total = total.narrow(j + 2, pad[0], d)
    return total


def pool_matrix(field: Field, windows: Windows) -> Int[Tensor, "p d"]:
    """Pooling along one mode; its divisors have exact inverses."""
    matrix = torch.zeros(len(windows.bounds), windows.size, dtype=torch.int64)
    for row, (start, stop), divisor in zip(matrix, windows.bounds, windows.divisors, strict=True):
        row[start:stop] = field.inverse(field.element(divisor))
    return matrix


def _along_modes(by: Arithmetic, layer: AveragePool, x: Tensor, *, back: bool) -> Tensor:
    for j, windows in enumerate(layer.modes):
        matrix = pool_matrix(by.field, windows)
        matrix = matrix.T if back else matrix
        x = by.field.matmul(matrix, x.movedim(j + 2, -2)).movedim(-2, j + 2)
    return x


def _pool(by: Arithmetic, layer: AveragePool, x: Tensor) -> Tensor:
    return _along_modes(by, layer, x, back=False)


def _pool_back(by: Arithmetic, layer: AveragePool, y: Tensor, _x: Tensor) -> Derivative:
    return (_along_modes(by, layer, y, back=True),), {}


def _scale(by: Arithmetic, layer: BatchNorm) -> Tensor:
    inverse: Tensor = layer.variance
    return inverse if layer.weight is None else by.field.multiply(inverse, layer.weight)


def _centred(by: Arithmetic, layer: BatchNorm, x: Tensor) -> Tensor:
    if not by.bias:
        return x
    return by.field.add(x, by.field.negative(_per_channel(layer.mean, x)))


def _batch_norm(by: Arithmetic, layer: BatchNorm, x: Tensor) -> Tensor:
    y = by.field.multiply(_centred(by, layer, x), _per_channel(_scale(by, layer), x))
    if by.bias and layer.bias is not None:
        y = by.field.add(y, _per_channel(layer.bias, y))
    return y


def _batch_norm_back(by: Arithmetic, layer: BatchNorm, y: Tensor, x: Tensor) -> Derivative:
    gradients, flat = {}, y.reshape(len(y), y.shape[1], -1)
    if layer.weight is not None:
        normal = by.field.multiply(_centred(by, layer, x), _per_channel(layer.variance, x))
        slopes = by.field.multiply(normal.reshape(flat.shape), flat)
        gradients["weight"] = by.field.sum(slopes, 2)
    if layer.bias is not None:
        gradients["bias"] = by.field.sum(flat, 2)
    return (by.field.multiply(y, _per_channel(_scale(by, layer), y)),), gradients


def _linear(by: Arithmetic, layer: Linear, x: Tensor) -> Tensor:
    y = by.field.matmul(x, layer.weight.T)
    return by.field.add(y, layer.bias) if by.bias and layer.bias is not None else y


def _linear_back(by: Arithmetic, layer: Linear, y: Tensor, x: Tensor) -> Derivative:
    gradients = {"weight": by.field.multiply(y[:, :, None], x[:, None, :])}
    if layer.bias is not None:
        gradients["bias"] = y
    return (by.field.matmul(y, layer.weight),), gradients


def _reindex(_by: Arithmetic, layer: Reindex, x: Tensor) -> Tensor:
    flat = x.reshape(len(x), -1)
    flat = flat if layer.index is None else flat[:, layer.index]
    return flat.reshape(len(x), *layer.target)


def _reindex_back(by: Arithmetic, layer: Reindex, y: Tensor, x: Tensor) -> Derivative:
    flat = y.reshape(len(y), -1)
    if layer.index is not None:
        total = flat.new_zeros(len(y), math.prod(layer.source))
        for copies in _repetitions(layer.index):  # an element that is read twice gets both parts
            target = layer.index[copies]
            total[:, target] = by.field.add(total[:, target], flat[:, copies])
        flat = total
    return (flat.reshape(x.shape),), {}


def _repetitions(index: Tensor) -> list[Tensor]:
    """Split places so that within a part no source occurs twice."""
    seen: dict[int, int] = {}
    parts: list[list[int]] = []
    for place, source in enumerate(index.tolist()):
        count = seen.get(source, 0)
        seen[source] = count + 1
        if count == len(parts):
            parts.append([])
        parts[count].append(place)
    return [torch.tensor(part) for part in parts]


def _sum(by: Arithmetic, layer: Sum, *inputs: Tensor) -> Tensor:
    terms = (
        by.field.multiply(x, by.field.element(c))
        for c, x in zip(layer.coefficients, inputs, strict=True)
    )
    total = next(terms)
    for term in terms:
        total = by.field.add(total, term)
    return total


def _sum_back(by: Arithmetic, layer: Sum, y: Tensor, *_inputs: Tensor) -> Derivative:
    return tuple(by.field.multiply(y, by.field.element(c)) for c in layer.coefficients), {}


FORWARD: dict[type[Layer], Callable[..., Tensor]] = {
    Conv: _conv,
    Placement: _conv,
    AveragePool: _pool,
    BatchNorm: _batch_norm,
    Linear: _linear,
    Reindex: _reindex,
    Sum: _sum,
}
"""(arithmetic, layer, *inputs) -> value."""

BACKWARD: dict[type[Layer], Callable[..., Derivative]] = {
    Conv: _conv_back,
    Placement: _conv_back,
    AveragePool: _pool_back,
    BatchNorm: _batch_norm_back,
    Linear: _linear_back,
    Reindex: _reindex_back,
    Sum: _sum_back,
}
"""(arithmetic, layer, cotangent, *input values) -> cotangents and gradients."""
