"""Where a step of the optimizer lives: coordinates around a range of kernels, free of gauge."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from krratio.experiments.decompositions import thin_svd
from krratio.experiments.kernels import KernelFormat
from krratio.experiments.reduced import Problem

__all__ = ["Chart", "FreeChart", "Local", "orthonormal", "tangent_norm"]

_FULL = 1e-6  # a triangle with a diagonal above this fraction of the largest is regular
_CUTOFF = 1e-9  # singular values below this fraction of the largest span no tangent


@dataclass(frozen=True, eq=False)
class Local:
    """The objective around S points, in coordinates z of a chart.

    Attributes
    ----------
    value : Tensor
        (S,).
    gradient, hessian : Tensor
        (S, n) and (S, n, n), in z.
    lift : Tensor
        What turns z into a step of the chart's θ.
    weight : Tensor
        W (S, L, P, T).
    norm : callable
        From indices into S to ‖Π ∂F/∂W‖ / ‖∂F/∂W at 0‖ there, Π the projection on the tangent
        space of the class; asked for only where a descent nears its end.
    """

    value: Tensor
    gradient: Tensor
    hessian: Tensor
    lift: Tensor
    weight: Tensor
    norm: Callable[[Tensor], Tensor]

    def select(self, kept: Tensor) -> "Local":
        """The points where ``kept`` (S,) is true."""
        if bool(kept.all()):
            return self
        places, whole = kept.nonzero()[:, 0], self.norm
        return Local(
            self.value[places],
            self.gradient[places],
            self.hessian[places],
            self.lift[places],
            self.weight[places],
            lambda some: whole(places[some]),
        )


class Chart(Protocol):
    """Coordinates z around each of S points θ (S, N); ``rows`` (S,) say which draw each θ fits."""

    def enter(self, theta: Tensor) -> Tensor:
        """θ of the chart from parameters (S, N) of the class."""
        ...

    def leave(self, theta: Tensor) -> Tensor:
        """Parameters (S, N) of the class, balanced, from θ of the chart."""
        ...

    def totals(self, rows: Tensor) -> Tensor:
        """Objective (S,) at W = 0."""
        ...

    def value(self, theta: Tensor, rows: Tensor) -> Tensor:
        """Objective (S,) at θ."""
        ...

    def expand(self, theta: Tensor, rows: Tensor) -> Local:
        """Objective, derivatives and coordinates at θ."""
        ...

    def move(self, theta: Tensor, lift: Tensor, step: Tensor) -> Tensor:
        """The point at coordinates ``step`` (S, n)."""
        ...


def orthonormal(matrices: Tensor) -> Tensor:
    """Orthonormal bases of the ranges of ``matrices`` (S, L, R)."""
    basis: Tensor = torch.linalg.qr(matrices)[0]
    found: Tensor = basis
    return found


class FreeChart:
    """Uncompressed kernels: θ is the whitened orthonormal A, z is X in A = Q₁ + Q₂X."""

    def __init__(self, kernels: KernelFormat, problem: Problem) -> None:
        self.shape, self.problem = (kernels.volume, kernels.rank), problem

    def enter(self, theta: Tensor) -> Tensor:
        """θ of the chart from parameters (S, N) of the format."""
        return orthonormal(self.problem.unframe @ self.kernels(theta)).flatten(1)

    def leave(self, theta: Tensor) -> Tensor:
        """Parameters (S, N) of the format from θ of the chart."""
        return orthonormal(self.problem.frame @ self.kernels(theta)).flatten(1)

    def kernels(self, theta: Tensor) -> Tensor:
        """Whitened kernels with orthonormal columns, (S, L, R)."""
        return theta.reshape(-1, *self.shape)

    def totals(self, rows: Tensor) -> Tensor:
        """Objective (S,) at W = 0."""
        return self.problem.half_total[rows]

    def value(self, theta: Tensor, rows: Tensor) -> Tensor:
        """Objective (S,) at θ."""
        return self.problem.value(self.kernels(theta), rows)

    def expand(self, theta: Tensor, rows: Tensor) -> Local:
        """Objective, derivatives and coordinates at θ."""
        kernels, rank = self.kernels(theta), self.shape[1]
        basis = torch.linalg.qr(kernels, mode="complete")[0]
        basis[..., :rank] = kernels  # Householder columns may differ in sign
        point = self.problem.point(basis, rank, rows)
        weight = self.problem.weight(kernels, point.fc)
        return Local(
            point.value,
            point.gradient().flatten(1),
            point.hessian(),
            basis[..., rank:],
            weight,
            lambda some: self.norm(weight[some], kernels[some], rows[some]),
        )

    def norm(self, weight: Tensor, kernels: Tensor, rows: Tensor) -> Tensor:
        """Relative tangent gradient (S,) at W = kernels·B."""
        slope = self.problem.slope(weight, rows)
        norm = tangent_norm(weight, slope, self.problem.frame @ kernels, None)
        relative: Tensor = norm / self.problem.slope_scale[rows]
        return relative

    def move(self, theta: Tensor, lift: Tensor, step: Tensor) -> Tensor:
        """The point at coordinates ``step`` (S, n)."""
        kernels = self.kernels(theta)
        moved = kernels + lift @ step.reshape(len(step), lift.shape[2], self.shape[1])
        return orthonormal(moved).flatten(1)


def tangent_norm(weight: Tensor, slope: Tensor, kernels: Tensor, tangents: Tensor | None) -> Tensor:
    """Norm (S,) of ``slope`` = ∂F/∂W projected on the tangent space of the class at W = A·B.

    The tangent space is {A·dB} + {dA·B}. With U and V orthonormal bases of range(A) and of the row
    space of B, the square of the norm is that of UᵀE plus that of (I − UUᵀ)EV, the latter projected
    on what the format's ``tangents`` ∂A/∂θ allow.
    """
    E, W = slope.flatten(2), weight.flatten(2)
    U, triangle = torch.linalg.qr(kernels)
    along = U.mT @ E
    _, sizes, V = thin_svd(U.mT @ W)
    V = V.mT * (sizes > _CUTOFF * sizes[:, :1])[:, None]
    across = (E - U @ along) @ V
    if tangents is not None:
        fc = torch.linalg.solve_triangular(triangle, U.mT @ (W @ V), upper=True)
        moves = torch.einsum("blrn,brv->blvn", tangents, fc).flatten(2)
        moves = (moves - U @ (U.mT @ moves)).reshape(*across.flatten(1).shape, -1)
        across = _range(moves).mT @ across.flatten(1)[..., None]
    squares: Tensor = along.square().sum((1, 2)) + across.square().sum((1, 2))
    return squares.sqrt()


def _range(matrices: Tensor) -> Tensor:
    """Orthonormal bases of the ranges of (S, a, b), filled up with zeros."""
    basis, triangle = torch.linalg.qr(matrices)
    sizes = triangle.diagonal(dim1=1, dim2=2).abs()
    doubtful = sizes.amin(1) <= _FULL * sizes.amax(1) if sizes.shape[1] else sizes.new_zeros(0)
    if bool(doubtful.any()):  # where a QR decomposition does not tell the rank
        left, values, _ = thin_svd(matrices[doubtful])
        basis[doubtful] = left * (values > _CUTOFF * values[:, :1])[:, None]
    found: Tensor = basis
    return found
