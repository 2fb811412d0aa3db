"""The least-squares objective over W = A·B with B eliminated, and its exact derivatives in A.

Variable projection (Golub and Pereyra 1973): for fixed kernels A (L × R) the outputs decouple and
share one matrix M(A) = (A ⊗ I_P)ᵀ (G + λI) (A ⊗ I_P), so the best B is one Cholesky factorization
away. What is left, f(A), depends on range(A) only: a function on the Grassmannian. Around A = Q₁ of
an orthonormal basis Q = [Q₁ Q₂] every neighbouring range is that of Q₁ + Q₂X for one X, so X is a
chart without gauge directions, and this module differentiates X ↦ f(Q₁ + Q₂X) twice at X = 0.
All functions take a leading batch axis S, many starts and draws at once, and ``rows`` (S,) that say
which draw each of them fits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from krratio.experiments.draws import Draws

__all__ = ["Problem", "ReducedPoint", "from_pairs", "meet"]


@dataclass(frozen=True, eq=False)
class ReducedPoint:
    """The reduced objective at one batch of kernels.

    Attributes
    ----------
    value : Tensor
        (S,) objective f(A).
    fc : Tensor
        (S, R, P, T) the optimal B for kernels Q₁ (in the whitened frame).
    residual : Tensor
        (S, L − R, P, T) the part of ∂F/∂W across Q₂; the part across Q₁ vanishes at the optimal B.
    cholesky : Tensor
        (S, R·P, R·P) lower factor of M.
    half : Tensor
        (S, R, L, P, P) the Gram with Q₁ on its first side.
    outside : Tensor
        (S, L, L − R) the basis Q₂.
    gram : Tensor
        (L, L, P, P) the Gram itself, shared by all starts.
    """

    value: Tensor
    fc: Tensor
    residual: Tensor
    cholesky: Tensor
    half: Tensor
    outside: Tensor
    gram: Tensor

    def gradient(self) -> Tensor:
        """∂f/∂X, (S, L − R, R)."""
        return self.residual.flatten(2) @ self.fc.flatten(2).mT

    def hessian(self) -> Tensor:
        """∂²f/∂X², (S, n, n) with n = (L − R)·R, index order (i, r).

        The Schur complement H_XX − Σ_t H_XB,t M⁻¹ H_BX,t. H_XB holds the second-order term
        δ_rs·residual of the bilinear map (X, B) ↦ X·B: residuals are large here, and without it
        (Gauss-Newton) convergence would be linear.
        """
        starts, rank, positions, outputs = self.fc.shape
        size = self.residual.shape[1] * rank
        coupled = self._coupling().reshape(starts, size * outputs, rank * positions)
        # Transposed it is column-major, as LAPACK wants it, so that nothing is copied.
        solved = torch.linalg.solve_triangular(self.cholesky, coupled.mT, upper=False).mT
        solved = solved.reshape(starts, size, outputs * rank * positions)
        schur: Tensor = self._quadratic().reshape(starts, size, size) - solved @ solved.mT
        return schur

    def _quadratic(self) -> Tensor:
        """H_XX (S, i, r, j, s) = Σ_{pqt} B[r,p,t] G[i,p,j,q] B[s,q,t]."""
        rank = self.fc.shape[1]
        met = self.outside.mT[:, None] @ _outer(self.gram, self.fc) @ self.outside[:, None]
        quadratic: Tensor = from_pairs(met, rank).permute(0, 3, 1, 4, 2)
        return quadratic

    def _coupling(self) -> Tensor:
        """H_XB (S, i, r, t, s, q) = Σ_p B[r,p,t] G[i,p,s,q] + δ_rs residual[i,q,t]."""
        coupling = meet(self.half, self.fc).transpose(1, 2)  # (S, l, r, t, s, q)
        turned: Tensor = self.outside.mT @ coupling.flatten(2)
        turned = turned.unflatten(2, coupling.shape[2:])
        turned.diagonal(dim1=2, dim2=4).add_(self.residual.mT[..., None])  # (S, i, t, q, r)
        return turned


def meet(half: Tensor, fc: Tensor) -> Tensor:
    """Σ_p B[u, p, t] G[(l, p), (A_r, q)] as (S, u, l, t, r, q), for half (S, R, L, q, p)."""
    starts, rank, volume, positions, _ = half.shape
    mixed = half.flatten(1, 3) @ fc.transpose(1, 2).reshape(starts, positions, -1)
    mixed = mixed.reshape(starts, rank, volume, positions, rank, -1)
    return mixed.permute(0, 4, 2, 5, 1, 3)


def from_pairs(upper: Tensor, rank: int) -> Tensor:
    """(S, R, R, a, a) from its blocks (u, v) with u ≤ v, (S, R(R + 1)/2, a, a), by symmetry."""
    u, v = torch.triu_indices(rank, rank)
    blocks = upper.new_empty(len(upper), rank, rank, *upper.shape[2:])
    blocks[:, v, u], blocks[:, u, v] = upper.mT, upper
    return blocks


def _outer(gram: Tensor, fc: Tensor) -> Tensor:
    """Σ_{pqt} B[u,p,t] G[l,m,p,q] B[v,q,t] for u ≤ v, (S, R(R + 1)/2, L, L)."""
    starts, rank, positions, outputs = fc.shape
    u, v = torch.triu_indices(rank, rank)
    flat = fc.reshape(starts, rank * positions, outputs)
    squares = (flat @ flat.mT).reshape(starts, rank, positions, rank, positions)
    outer = squares.transpose(2, 3)[:, u, v].reshape(-1, positions**2)
    # One product for all starts; turning the Gram into each start's basis would cost more.
    met: Tensor = outer @ gram.reshape(len(gram) ** 2, -1).mT
    return met.reshape(starts, -1, *gram.shape[:2])


class Problem:
    """Draws and ridge in the frame where kernels are whitened by the mean patch Gram.

    The frame is a change of basis of the L mode only, W = (frame ⊗ I) W̃, so ranks are untouched.
    It is chosen such that a unit step in any kernel direction changes the predictions about
    equally; the trust region relies on that, the optimum does not.

    Attributes
    ----------
    frame : Tensor
        (L, L), kernels = frame @ whitened kernels.
    gram : Tensor
        (L, L, P, P), whitened G + λI with index order (l, m, p, q).
    square : Tensor
        (L·P, L·P), the same with index order (l, p; m, q).
    cross : Tensor
        (m, L, P·T), whitened, of every draw.
    half_total, slope_scale : Tensor
        (m,) objective and norm of ∂F/∂W at W = 0.
    """

    def __init__(self, draws: Draws, ridge: float) -> None:
        L, P, T = draws.shape
        self.shape = (L, P, T)
        self.ridge = ridge
        self.half_total = draws.total.sum(1) / 2
        self.raw_gram, self.raw_cross = draws.gram, draws.cross
        # The floor serves outputs that do not depend on the patches at all.
        self.slope_scale = draws.cross.flatten(1).norm(dim=1).clamp_min(1e-300)
        gram = draws.gram.reshape(L, P, L, P).permute(0, 2, 1, 3)
        gram = gram + ridge * torch.einsum("lm,pq->lmpq", *(torch.eye(k).double() for k in (L, P)))
        self.plain = gram.contiguous()
        mean = gram.diagonal(dim1=2, dim2=3).mean(-1)
        # The floor only keeps the frame finite where some patch entry never varies.
        floor = 1e-8 * float(mean.diagonal().mean()) * torch.eye(L, dtype=torch.float64)
        self.unframe = torch.linalg.cholesky(mean + floor).mT.contiguous()
        self.frame = torch.linalg.inv(self.unframe)
        turned = (self.frame.mT @ self.plain.reshape(L, -1)).reshape(L, L, P * P)
        self.gram = (self.frame.mT @ turned).reshape(L, L, P, P)
        self.square = self.gram.transpose(1, 2).reshape(L * P, L * P)
        self.cross = self.frame.mT @ draws.cross.reshape(-1, L, P * T)

    def half(self, kernels: Tensor, rows: Tensor) -> Tensor:
        """A on one side of G + λI in the original frame: (S, L, R) to (S, R, L, P, P)."""
        del rows  # one design
        half: Tensor = self._half(self.plain, kernels).unflatten(-1, (self.shape[1],) * 2)
        return half

    def eliminate(
        self, half: Tensor, kernels: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Objective (S,), best B (S, R, P, T) and Cholesky factor for kernels in that frame."""
        cross = self.raw_cross[rows].reshape(len(kernels), self.shape[0], -1)
        value, fc, cholesky = self._eliminate(half.flatten(-2), kernels, cross, rows)
        return value, fc.reshape(len(kernels), -1, *self.shape[1:]), cholesky

    def outer(self, fc: Tensor, rows: Tensor) -> Tensor:
        """Σ_{pqt} B[u,p,t] (G + λI)[l,p,m,q] B[v,q,t] in that frame for u ≤ v, (S, ·, L, L)."""
        del rows
        return _outer(self.plain, fc)

    @staticmethod
    def _half(gram: Tensor, kernels: Tensor) -> Tensor:
        """``kernelsᵀ gram`` on the first axis: (L, L, P, P) with (S, L, R) to (S, R, L, P·P)."""
        starts, L, rank = kernels.shape
        rows = kernels.mT.reshape(starts * rank, L)  # one product: torch would make one per start
        return (rows @ gram.reshape(L, -1)).reshape(starts, rank, L, -1)

    def value(self, kernels: Tensor, rows: Tensor) -> Tensor:
        """Objective f (S,) at whitened orthonormal kernels (S, L, R)."""
        return self._eliminate(self._half(self.gram, kernels), kernels, self.cross[rows], rows)[0]

    def point(self, basis: Tensor, rank: int, rows: Tensor) -> ReducedPoint:
        """Everything the derivatives need, at the first ``rank`` columns of ``basis`` (S, L, L)."""
        L, P, T = self.shape
        starts, kernels, outside = len(basis), basis[..., :rank], basis[..., rank:]
        half, cross = self._half(self.gram, kernels), self.cross[rows]
        value, fc, cholesky = self._eliminate(half, kernels, cross, rows)
        weight = (kernels @ fc.reshape(starts, rank, P * T)).reshape(starts, L * P, T)
        slope = (weight.mT.reshape(starts * T, L * P) @ self.square).reshape(starts, T, L * P)
        slope = slope.mT.reshape(starts, L, P * T) - cross
        return ReducedPoint(
            value,
            fc.reshape(starts, rank, P, T),
            (outside.mT @ slope).reshape(starts, L - rank, P, T),
            cholesky,
            half.unflatten(-1, (P, P)),
            outside,
            self.gram,
        )

    def _eliminate(
        self, half: Tensor, kernels: Tensor, cross: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        _, P, T = self.shape
        starts, rank = len(kernels), kernels.shape[2]
        matrix = (
            (kernels.mT[:, None] @ half).reshape(starts, rank, rank, P, P).permute(0, 1, 3, 2, 4)
        )
        matrix = matrix.reshape(starts, rank * P, rank * P)
        cholesky = torch.linalg.cholesky(matrix)
        seen = (kernels.mT @ cross).reshape(starts, rank * P, T)
        fc = torch.cholesky_solve(seen, cholesky)
        return self.half_total[rows] - (seen * fc).sum((1, 2)) / 2, fc, cholesky

    def weight(self, kernels: Tensor, fc: Tensor) -> Tensor:
        """W (S, L, P, T) in the original frame."""
        return torch.einsum("lm,bmr,brpt->blpt", self.frame, kernels, fc)

    def unconstrained(self) -> Tensor:
        """The W (m, L, P, T) that minimize F without a rank constraint."""
        matrix = self.raw_gram + self.ridge * torch.eye(len(self.raw_gram), dtype=torch.float64)
        flat = self.raw_cross.transpose(0, 1).flatten(1)  # (L·P, m·T): one solve for all draws
        solved = torch.cholesky_solve(flat, torch.linalg.cholesky(matrix))
        solution: Tensor = solved.unflatten(1, (-1, self.shape[2])).transpose(0, 1)
        return solution.reshape(-1, *self.shape)

    def slope(self, weight: Tensor, rows: Tensor) -> Tensor:
        """∂F/∂W (S, L, P, T) in the original frame, from the statistics as they came."""
        L, P, T = self.shape
        flat = weight.reshape(-1, L * P, T).permute(1, 0, 2).reshape(L * P, -1)
        slope = (self.raw_gram @ flat + self.ridge * flat).reshape(L * P, -1, T)
        return (slope.permute(1, 0, 2) - self.raw_cross[rows]).reshape(-1, L, P, T)
