"""Charts of kernels with structure: the reduced objective differentiated in the format's own θ.

B is eliminated as in ``reduced``. The Gram meets A on one side and B on the other, R matrix
products of its size each; the Jacobian of the weight is never formed.
"""

import torch
from torch import Tensor

from krratio.experiments.charts import Local, orthonormal, tangent_norm
from krratio.experiments.directions import Directions, directions
from krratio.experiments.kernels import KernelFormat
from krratio.experiments.reduced import Problem, from_pairs, meet

__all__ = ["StructuredChart"]

_GAUGE = 1e-13  # squared singular values of dX/dθ below this fraction of dA/dθ are gauge
_SURELY_FREE = 1e-10  # if all are above this fraction no eigenvalues are needed to see it
_DAMPING = 1e-3  # below this fraction the step is measured in θ, not in the kernels it moves


class StructuredChart:
    """Kernels A(θ) in the original frame; steps are measured by how far they move range(A).

    With A orthonormal in the whitened frame, dX = (I − AAᵀ) ∂A/∂θ dθ is that movement. Along the
    directions of θ that leave the format's own gauge out (:mod:`~krratio.experiments.directions`),
    dθ = D u, its squared length is uᵀMu, and coordinates are z = Cᵀu with CCᵀ = M up to damping.
    Where M is singular all the same, z are scaled eigenvectors, and those that do not move the
    range get no step.
    """

    def __init__(self, kernels: KernelFormat, problem: Problem) -> None:
        self.format, self.problem = kernels, problem

    def _original(self, theta: Tensor) -> Tensor:
        return self.format.kernels(self.format.unpack(theta))

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

    def expand(self, theta: Tensor, rows: Tensor) -> Local:
        """Objective, derivatives and coordinates at θ (S, N)."""
        raw = torch.func.vmap(self._original)(theta)
        along = directions(self.format, theta)
        turned, triangle = torch.linalg.qr(self.problem.unframe @ raw)
        eye = torch.eye(triangle.shape[-1], dtype=torch.float64)
        inverse = torch.linalg.solve_triangular(triangle, eye.expand_as(triangle), upper=True)
        lift, free = _coordinates(*self._metric(along, turned, inverse @ inverse.mT))

        kernels = self.problem.frame @ turned
        half = self.problem.half(kernels, rows)
        value, fc, cholesky = self.problem.eliminate(half, kernels, rows)
        weight = torch.einsum("blr,brpt->blpt", kernels, fc)
        slope = self.problem.slope(weight, rows)
        # The same W from the columns as they are: their B is R⁻¹ times that of orthonormal ones.
        fc = (inverse @ fc.flatten(2)).reshape(fc.shape)
        slope_a = slope.flatten(2) @ fc.flatten(2).mT  # (S, L, R)
        coupled = meet(half, fc).contiguous()
        coupled += torch.einsum("bmpt,bur->bumtrp", slope, inverse)
        hessian = _quadratic(along, self.problem.outer(fc, rows)) + along.bent(slope_a)
        hessian -= _explained(_pulled(along, coupled.flatten(3)), cholesky, fc.shape[3])
        gradient = _pulled(along, slope_a.mT[..., None])

        hessian = lift.mT @ hessian @ lift
        # Any positive number keeps the gauge directions still; this one leaves the spectrum's ends.
        level = hessian.flatten(1).norm(dim=1)[:, None]
        hessian = hessian + torch.diag_embed(~free * level)

        def norm(some: Tensor) -> Tensor:
            moves = along.everything()[some]
            found = tangent_norm(weight[some], slope[some], raw[some], moves)
            relative: Tensor = found / self.problem.slope_scale[rows[some]]
            return relative

        gradient = (lift.mT @ gradient)[..., 0]
        return Local(value, gradient, hessian, along.basis @ lift, weight, norm)

    def _metric(self, along: Directions, turned: Tensor, mixing: Tensor) -> tuple[Tensor, Tensor]:
        """How far range(A) moves: squared lengths (S, n, n); and the largest with the gauge (S,).

        ``mixing`` (S, R, R) turns columns into orthonormal ones, twice.
        """
        shared, own = (self.problem.unframe @ part for part in (along.shared, along.own))
        lengths = _longest(shared, own, mixing)
        shared, own = (
            part - turned[:, None] @ (turned.mT[:, None] @ part) for part in (shared, own)
        )
        mixed = (mixing @ shared.flatten(2)).reshape(shared.shape)
        within = shared.flatten(1, 2).mT @ mixed.flatten(1, 2)
        between = own.mT @ mixed
        columns = own.transpose(1, 2).flatten(2)  # (S, L, R·k) or (S, L, k)
        alone = (columns.mT @ columns).reshape(
            len(own), own.shape[1], own.shape[3], own.shape[1], own.shape[3]
        )
        alone = alone * mixing[:, :, None, :, None]
        return _assembled(within, between, alone), lengths

    def move(self, theta: Tensor, lift: Tensor, step: Tensor) -> Tensor:
        """The point at coordinates ``step`` (S, n)."""
        moved = theta + (lift @ step[..., None])[..., 0]
        return torch.func.vmap(self._balanced)(moved)

    def _balanced(self, theta: Tensor) -> Tensor:
        return self.format.pack(self.format.balance(self.format.unpack(theta)))


def _longest(shared: Tensor, own: Tensor, mixing: Tensor) -> Tensor:
    """The largest squared length (S,) of a direction, with what stays in range(A)."""
    mixed = (mixing @ shared.flatten(2)).reshape(shared.shape)
    alone = own.square().sum(2) * mixing.diagonal(dim1=1, dim2=2)[..., None]
    lengths = torch.cat([(shared * mixed).sum((1, 2)), alone.flatten(1)], 1)
    return lengths.amax(1) if lengths.shape[1] else lengths.new_zeros(len(lengths))


def _assembled(within: Tensor, between: Tensor, alone: Tensor) -> Tensor:
    """(S, n, n) from (S, d, d), (S, R, k, d) and (S, R, k, R, k)."""
    d, between = within.shape[1], between.flatten(1, 2)
    n = d + between.shape[1]
    whole = within.new_empty(len(within), n, n)
    whole[:, :d, :d], whole[:, d:, :d], whole[:, :d, d:] = within, between, between.mT
    whole[:, d:, d:] = alone.reshape(len(within), n - d, n - d)
    return whole


def _pulled(along: Directions, columns: Tensor) -> Tensor:
    """What ``columns`` (S, R, L, c) of ∂A mean along the directions, (S, n, c)."""
    shared = along.shared.flatten(1, 2).mT @ columns.flatten(1, 2)
    return torch.cat([shared, (along.own.mT @ columns).flatten(1, 2)], 1)


def _quadratic(along: Directions, outer: Tensor) -> Tensor:
    """∂Aᵀ · outer · ∂A, (S, n, n), for the blocks u ≤ v of outer, (S, R(R + 1)/2, L, L)."""
    rank = along.shared.shape[1]
    own, shared = along.own.expand(-1, rank, -1, -1), along.shared
    u, v = torch.triu_indices(rank, rank)
    alone = from_pairs(own[:, u].mT @ (outer @ own[:, v]), rank).transpose(2, 3)
    met = torch.zeros_like(shared)
    if shared.shape[3]:
        met.index_add_(1, u, outer @ shared[:, v])
        lower = u < v
        met.index_add_(1, v[lower], outer[:, lower].mT @ shared[:, u[lower]])
    within = shared.flatten(1, 2).mT @ met.flatten(1, 2)
    return _assembled(within, own.mT @ met, alone)


def _explained(coupled: Tensor, cholesky: Tensor, outputs: int) -> Tensor:
    """Σ_t C_t M⁻¹ C_tᵀ (S, n, n) for C (S, n, T·R·P): what B regains."""
    starts, size, _ = coupled.shape
    turned = coupled.reshape(starts, size * outputs, cholesky.shape[1])
    # Transposed it is column-major, as LAPACK wants it, so that nothing is copied.
    solved = torch.linalg.solve_triangular(cholesky, turned.mT, upper=False).mT
    solved = solved.reshape(coupled.shape)
    explained: Tensor = solved @ solved.mT
    return explained


def _coordinates(metric: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
    """Lift (S, n, n) from coordinates to directions, and which coordinates are no gauge (S, n)."""
    starts, size, _ = metric.shape
    eye = torch.eye(size, dtype=torch.float64)
    largest = metric.diagonal(dim1=1, dim2=2).amax(1) if size else whole
    level = torch.maximum(largest, whole)[:, None, None]
    gauge = torch.linalg.cholesky_ex(metric - _SURELY_FREE * level * eye)[1] != 0
    factor, _ = torch.linalg.cholesky_ex(metric + _DAMPING**2 * largest[:, None, None] * eye)
    lift = torch.linalg.solve_triangular(factor.mT, eye.expand_as(factor), upper=True)
    free = torch.ones(starts, size, dtype=torch.bool)
    if bool(gauge.any()):
        lift[gauge], free[gauge] = _without_gauge(metric[gauge], whole[gauge])
    return lift, free


def _without_gauge(metric: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
    """The same where some directions do not move the range: they get no step."""
    values, vectors = torch.linalg.eigh(metric)
    largest = values[:, -1:].clamp_min(1e-300)
    free = values > _GAUGE * torch.maximum(largest, whole[:, None])
    scale = (values.clamp_min(0.0) + _DAMPING**2 * largest).sqrt()
    return vectors * (free / scale)[:, None], free
