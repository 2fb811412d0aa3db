"""Charts of kernels with structure: the reduced objective differentiated in the format's own θ.

B is eliminated as in ``reduced``. The Gram meets A on one side and B on the other, R matrix
products of its size each; the Jacobian of the weight is never formed.
"""

import math

import torch
from torch import Tensor

from krratio.experiments.charts import Local, orthonormal, tangent_norm
from krratio.experiments.kernels import KernelFormat
from krratio.experiments.reduced import Problem

__all__ = ["StructuredChart"]

_GAUGE = 1e-13  # squared singular values of dX/dθ below this fraction of dA/dθ are gauge
_DAMPING = 1e-3  # below this fraction the step is measured in θ, not in the kernels it moves


class StructuredChart:
    """Kernels A(θ) in the original frame; steps are measured by how far they move range(A).

    With A orthonormal in the whitened frame, dX = (I − AAᵀ) ∂A/∂θ dθ is that movement. If its
    squared length is dθᵀ V diag(s²) Vᵀ dθ, coordinates are z = diag(s) Vᵀ dθ. Directions with s = 0
    are gauge and get no step.
    """

    def __init__(self, kernels: KernelFormat, problem: Problem) -> None:
        self.format, self.problem = kernels, problem
        numbers = [torch.full((math.prod(n),), float(i)) for i, n in enumerate(kernels.shapes)]
        block = torch.cat(numbers)
        self.same = block[:, None] == block

    def _original(self, theta: Tensor) -> Tensor:
        return self.format.kernels(self.format.unpack(theta))

    def _variants(self, theta: Tensor) -> Tensor:
        """θ (S, N) with the block of entry i replaced by the i-th unit, for all i: (S, N, N).

        A is linear in each block, so that A of the i-th variant is ∂A/∂θ_i, without a tape.
        """
        return torch.where(self.same, torch.eye(theta.shape[1], dtype=theta.dtype), theta[:, None])

    def _bent(self, theta: Tensor, weights: Tensor) -> Tensor:
        """⟨weights, ∂²A/∂θ²⟩, (S, N, N)."""
        slope = torch.func.grad(lambda moved, held: (self._original(moved) * held).sum())
        slopes = torch.func.vmap(torch.func.vmap(slope, (0, None)))(self._variants(theta), weights)
        return torch.where(self.same, 0.0, slopes)

    def enter(self, theta: Tensor) -> Tensor:
        """θ of the chart from parameters (S, N) of the format."""
        return theta

    def leave(self, theta: Tensor) -> Tensor:
        """Parameters (S, N) of the format from θ of the chart."""
        return theta

    def kernels(self, theta: Tensor) -> Tensor:
        """Whitened kernels with orthonormal columns, (S, L, R)."""
        return orthonormal(self.problem.unframe @ torch.func.vmap(self._original)(theta))

    def totals(self, rows: Tensor) -> Tensor:
        """Objective (S,) at W = 0."""
        return self.problem.half_total[rows]

    def value(self, theta: Tensor, rows: Tensor) -> Tensor:
        """Objective (S,) at θ."""
        return self.problem.value(self.kernels(theta), rows)

    def tangents(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """A (S, L, R) and ∂A/∂θ (S, L, R, N), in the original frame."""
        kernels = torch.func.vmap(self._original)(theta)
        moves = torch.func.vmap(torch.func.vmap(self._original))(self._variants(theta))
        return kernels, moves.movedim(1, 3)

    def expand(self, theta: Tensor, rows: Tensor) -> Local:
        """Objective, derivatives and coordinates at θ (S, N)."""
        raw, moves = self.tangents(theta)
        turned, triangle = torch.linalg.qr(self.problem.unframe @ raw)
        kernels = self.problem.frame @ turned
        eye = torch.eye(kernels.shape[2], dtype=torch.float64)
        inverse = torch.linalg.solve_triangular(triangle, eye.expand_as(triangle), upper=True)
        # The same ranges from columns that are orthonormal: A R⁻¹ moves by ∂A R⁻¹.
        moves = (moves.transpose(2, 3) @ inverse[:, None]).transpose(2, 3)  # (S, L, R, N)
        lift, free = _coordinates(self.problem.unframe @ moves.flatten(2), turned)
        moves = moves.flatten(1, 2)

        half = self.problem.half(kernels, rows)
        value, fc, cholesky = self.problem.eliminate(half, kernels, rows)
        weight = torch.einsum("blr,brpt->blpt", kernels, fc)
        slope = self.problem.slope(weight, rows)
        gradient_a = slope.flatten(2) @ fc.flatten(2).mT  # (S, L, R)
        quadratic = moves.mT @ self.problem.outer(fc, rows) @ moves
        coupled = _coupling(half, fc)
        coupled.diagonal(dim1=2, dim2=4).add_(slope.transpose(2, 3)[..., None])
        curvature = self._bent(theta, gradient_a @ inverse.mT)
        hessian = self._schur(moves, quadratic + curvature, coupled, cholesky)

        gradient = (moves.mT @ gradient_a.flatten(1)[..., None])[..., 0]
        hessian = lift.mT @ hessian @ lift
        # Any positive number keeps the gauge directions still; this one leaves the spectrum's ends.
        level = hessian.flatten(1).norm(dim=1)[:, None]
        hessian = hessian + torch.diag_embed(~free * level)
        gradient = (lift.mT @ gradient[..., None])[..., 0]
        tangents = moves.reshape(*kernels.shape, -1)

        def norm(some: Tensor) -> Tensor:
            found = tangent_norm(weight[some], slope[some], kernels[some], tangents[some])
            relative: Tensor = found / self.problem.slope_scale[rows[some]]
            return relative

        return Local(value, gradient, hessian, lift, weight, norm)

    @staticmethod
    def _schur(moves: Tensor, quadratic: Tensor, coupled: Tensor, cholesky: Tensor) -> Tensor:
        """Quadratic − Σ_t C_t M⁻¹ C_tᵀ, B eliminated."""
        starts, _, _, outputs, rank, positions = coupled.shape
        size = quadratic.shape[1]
        turned = moves.mT @ coupled.reshape(starts, moves.shape[1], -1)
        turned = turned.reshape(starts, size * outputs, rank * positions)
        solved = torch.linalg.solve_triangular(cholesky, turned.mT, upper=False).mT
        solved = solved.reshape(starts, size, -1)
        schur: Tensor = quadratic - solved @ solved.mT
        return schur

    def move(self, theta: Tensor, lift: Tensor, step: Tensor) -> Tensor:
        """The point at coordinates ``step`` (S, n)."""
        moved = theta + (lift @ step[..., None])[..., 0]
        return torch.func.vmap(self._balanced)(moved)

    def _balanced(self, theta: Tensor) -> Tensor:
        return self.format.pack(self.format.balance(self.format.unpack(theta)))


def _coupling(half: Tensor, fc: Tensor) -> Tensor:
    """Σ_q B[u, q, t] G[(m, q), (A_r, p)] as (S, m, u, t, r, p)."""
    starts, rank, volume, positions, _ = half.shape
    mixed = half.flatten(1, 3) @ fc.transpose(1, 2).reshape(starts, positions, -1)
    mixed = mixed.reshape(starts, rank, volume, positions, rank, -1)
    return mixed.permute(0, 2, 4, 5, 1, 3).contiguous()


def _coordinates(moves: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
    """Lift (S, N, N) from coordinates to θ, and which coordinates are no gauge (S, N)."""
    across = moves - kernels @ (kernels.mT @ moves)
    across = across.reshape(len(moves), kernels.shape[1] * kernels.shape[2], -1)
    values, vectors = torch.linalg.eigh(across.mT @ across)
    largest = values[:, -1:].clamp_min(1e-300)
    whole = moves.square().sum(1).amax(1, keepdim=True)  # all may be gauge, and rounding is left
    free = values > _GAUGE * torch.maximum(largest, whole)
    scale = (values.clamp_min(0.0) + _DAMPING**2 * largest).sqrt()
    return vectors * (free / scale)[:, None], free
