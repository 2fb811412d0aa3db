"""One frozen spec per layer kind, with its shape arithmetic; weights are held by reference.

A spec says what a layer *is*, not how it is computed: its map and its adjoint stand in the
tables of :mod:`krratio.theory.adjoint`, each with one row per kind of :data:`KINDS`.
Shapes never hold the batch: ``(C, d_1, ..., d_N)`` for images, ``(F,)`` for flat features.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from krratio.errors import ShapeError
from krratio.networks.windows import Windows

__all__ = [
    "KINDS",
    "AveragePool",
    "BatchNorm",
    "Conv",
    "Layer",
    "Linear",
    "Placement",
    "Reindex",
    "Shape",
    "Sum",
]

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Layer(ABC):
    """What all kinds share: a shape rule, and access to the weights."""

    @abstractmethod
    def output_shape(self, *inputs: Shape) -> Shape:
        """Shape that comes out when ``inputs`` go in; :class:`ShapeError` if they cannot."""

    def weights(self) -> dict[str, Tensor]:
        """Return the weights that the layer refers to, by field name."""
        fields = vars(self).items()
        return {k: v for k, v in fields if isinstance(v, Tensor) and k != "index"}

    def map_weights(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the same layer with every weight ``w`` replaced by ``change(w)``."""
        return replace(self, **{k: change(v) for k, v in self.weights().items()})


@dataclass(frozen=True, eq=False)
class Conv(Layer):
    """Zero-padded cross-correlation.

    Attributes
    ----------
    weight
        Entry [k, c, a_1, ..., a_N] multiplies channel c of k's group at offset a of the window.
    bias
        One constant per output channel.
    stride, dilation
        One integer per spatial mode.
    padding
        Zeros (before, after) in each spatial mode; they differ for ``"same"`` with even kernels.
    groups
        Output channels of group i read the i-th of ``groups`` equal slices of the input channels.
    """

    weight: Shaped[Tensor, "K C_per_group *l"]
    bias: Shaped[Tensor, " K"] | None
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def kernel(self) -> Shape:
        """Kernel sizes (l_1, ..., l_N)."""
        return tuple(self.weight.shape[2:])

    @property
    def channels(self) -> tuple[int, int]:
        """Channels that enter and channels that leave."""
        return self.weight.shape[1] * self.groups, self.weight.shape[0]

    def output_shape(self, *inputs: Shape) -> Shape:
        """(C, d_1..d_N) -> (K, m_1..m_N), m = (d + pad - dilation (l - 1) - 1) // stride + 1."""
        (shape,) = inputs
        takes = f"({self.channels[0]}, {', '.join(f'd_{j + 1}' for j in range(len(self.kernel)))})"
        if len(shape) != len(self.kernel) + 1 or shape[0] != self.channels[0]:
            given = tuple(self.weight.shape)
            raise ShapeError(f"its weight of shape {given} takes {takes}, but {shape} comes in")
        sizes = []
        for j, d in enumerate(shape[1:]):
            padded, reach = d + sum(self.padding[j]), self.dilation[j] * (self.kernel[j] - 1) + 1
            if reach > padded:
                raise ShapeError(
                    f"in spatial mode {j + 1} its window of {reach} is wider than the "
                    f"(padded) input of {padded}; the input shape is {shape}"
                )
            sizes.append((padded - reach) // self.stride[j] + 1)
        return (self.channels[1], *sizes)


@dataclass(frozen=True, eq=False)
class Placement(Conv):
    """Channels put in their places among zeros: a 1×1 convolution in which nothing varies.

    A concatenation along channels is the sum of one placement for each part.
    """

    @classmethod
    def of(cls, channels: int, *, first: int, total: int, modes: int, like: Tensor) -> Self:
        """Channel i goes to place ``first + i`` of ``total``; entries of the dtype of ``like``."""
        rows = torch.eye(total, dtype=like.dtype, device="cpu")[:, first : first + channels]
        ones = (1,) * modes
        weight = rows.reshape(total, channels, *ones)
        return cls(weight, None, ones, ((0, 0),) * modes, ones, 1)


@dataclass(frozen=True, eq=False)
class AveragePool(Layer):
    """Average pooling, plain or adaptive, resolved to the windows of each spatial mode.

    The pooling matrix is the Kronecker product of the modes' matrices, whatever the padding
    convention, because the divisor is a product of one count per mode.
    """

    modes: tuple[Windows, ...]

    def output_shape(self, *inputs: Shape) -> Shape:
        """(C, d_1..d_N) -> (C, p_1..p_N)."""
        (shape,) = inputs
        takes = tuple(w.size for w in self.modes)
        if shape[1:] != takes:
            raise ShapeError(f"it pools spatial sizes {takes}, but {shape} comes in")
        return (shape[0], *(len(w.bounds) for w in self.modes))


@dataclass(frozen=True, eq=False)
class BatchNorm(Layer):
    """BatchNorm in eval mode: channel c becomes scale_c x + shift_c."""

    mean: Shaped[Tensor, " C"]
    variance: Shaped[Tensor, " C"]
    weight: Shaped[Tensor, " C"] | None
    bias: Shaped[Tensor, " C"] | None
    eps: float

    def scale(self) -> Float[Tensor, " C"]:
        """Factor per channel, weight / sqrt(variance + eps)."""
        inverse = (self.variance + self.eps).rsqrt()
        return inverse if self.weight is None else self.weight * inverse

    def shift(self) -> Float[Tensor, " C"]:
        """Constant per channel, bias - mean * scale."""
        shift = -self.mean * self.scale()
        return shift if self.bias is None else self.bias + shift

    def output_shape(self, *inputs: Shape) -> Shape:
        """Shape unchanged."""
        (shape,) = inputs
        if shape[0] != len(self.mean):
            raise ShapeError(f"it normalizes {len(self.mean)} channels, but {shape} comes in")
        return shape


@dataclass(frozen=True, eq=False)
class Linear(Layer):
    """Fully connected layer on flat features; entry [t, i] weighs feature i in output t."""

    weight: Shaped[Tensor, "T F"]
    bias: Shaped[Tensor, " T"] | None

    def output_shape(self, *inputs: Shape) -> Shape:
        """(F,) -> (T,)."""
        (shape,) = inputs
        outputs, features = self.weight.shape
        if len(shape) != 1:
            raise ShapeError(
                f"it takes flat features ({features},), but {shape} comes in: "
                "put nn.Flatten() first"
            )
        if shape[0] != features:
            raise ShapeError(
                f"its weight of shape ({outputs}, {features}) takes ({features},), "
                f"but {shape} comes in"
            )
        return (outputs,)


@dataclass(frozen=True, eq=False)
class Reindex(Layer):
    """Elements moved, never changed: flatten, reshape, transpose, shuffle, slice.

    Attributes
    ----------
    source, target
        Shapes before and after.
    index
        Flat output element i is flat input element index[i]; None where the order is kept.
    """

    source: Shape
    target: Shape
    index: Int[Tensor, " n"] | None

    def output_shape(self, *inputs: Shape) -> Shape:
        """Source -> target."""
        (shape,) = inputs
        if shape != self.source:
            raise ShapeError(f"it takes {self.source}, but {shape} comes in")
        return self.target

    def channel_permutation(self) -> Int[Tensor, " C"] | None:
        """Return the source of each target channel if only whole channels move, else None."""
        if self.source != self.target or len(self.source) < 2:
            return None
        channels, area = self.source[0], math.prod(self.source[1:])
        if self.index is None:
            return torch.arange(channels)
        grid = self.index.reshape(channels, area)
        order = grid[:, 0] // area
        whole = order[:, None] * area + torch.arange(area)
        bijective = torch.equal(order.sort().values, torch.arange(channels))
        return order if bijective and torch.equal(grid, whole) else None


@dataclass(frozen=True, eq=False)
class Sum(Layer):
    """Weighted sum of inputs of one shape: residual sums, differences, multiples."""

    coefficients: tuple[float, ...]

    def output_shape(self, *inputs: Shape) -> Shape:
        """Shape unchanged; all inputs must agree."""
        if any(shape != inputs[0] for shape in inputs):
            given = " and ".join(map(str, inputs))
            raise ShapeError(f"a sum takes equal shapes, but {given} come in")
        return inputs[0]


KINDS: tuple[type[Layer], ...] = (
    Conv,
    Placement,
    AveragePool,
    BatchNorm,
    Linear,
    Reindex,
    Sum,
)
"""Every layer kind; each table of the theory has one row for each."""
