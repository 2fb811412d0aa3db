"""Directions in which structured kernels A(θ) move, without the gauge directions of their blocks.

A is linear in each block, so that with one block replaced by a direction it is the derivative. Most
directions move one column of A only, and much is saved by knowing that: in a chain (Tucker, tensor
train) those of the last block, the same ones for every column; in CP all of them.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from krratio.experiments.kernels import CPKernels, KernelFormat

__all__ = ["Directions", "directions"]


class Directions(ABC):
    """At S points, d directions that move all columns, then k for each of the R columns.

    Attributes
    ----------
    basis : Tensor
        (S, N, d + R·k) the directions in θ; those of a column stand together.
    shared : Tensor
        (S, R, L, d) how column r of A moves in the first ones.
    own : Tensor
        (S, R, L, k), or (S, 1, L, k) if the columns agree: how column r moves in its own ones.
    """

    basis: Tensor
    shared: Tensor
    own: Tensor

    @abstractmethod
    def bent(self, weights: Tensor) -> Tensor:
        """⟨weights, ∂²A⟩ (S, n, n) along the directions, for weights (S, L, R)."""

    def everything(self) -> Tensor:
        """∂A along all directions, (S, L, R, n)."""
        starts, rank, volume, _ = self.shared.shape
        own = torch.diag_embed(self.own.expand(-1, rank, -1, -1).permute(0, 2, 3, 1))
        own = own.permute(0, 1, 3, 4, 2).reshape(starts, volume, rank, -1)
        return torch.cat([self.shared.transpose(1, 2), own], 3)


class _Chain(Directions):
    """Of a Tucker format or a tensor train: the last block moves columns, the others all."""

    def __init__(self, kernels: KernelFormat, theta: Tensor) -> None:
        self.kernels = kernels
        *inner, last = _blocks(kernels, theta)
        across = _complement(last.flatten(1, -2))  # (S, q, k)
        parts = [_spread(_complement(block.flatten(1, -2)), block.shape[-1]) for block in inner]
        self.basis = _block_diagonal([*parts, _spread(across, kernels.rank).transpose(2, 3)])
        owners = _repeated([part.shape[2] * part.shape[3] for part in parts])
        self.variants, self.same = _variants(kernels, theta, self.basis[..., : len(owners)], owners)
        self.shared = _moved(kernels, self.variants).permute(0, 3, 2, 1).contiguous()
        self.own = across.new_zeros(len(theta), 1, kernels.volume, across.shape[2])
        if across.shape[2]:
            ends = across.unflatten(1, last.shape[1:-1])
            moved = torch.func.vmap(lambda *blocks: kernels.kernels(blocks))(*inner, ends)
            self.own = moved[:, None]

    def bent(self, weights: Tensor) -> Tensor:
        """⟨weights, ∂²A⟩ (S, n, n): A is linear in the last block."""
        n, d = self.basis.shape[2], self.shared.shape[3]
        curvature = self.basis.new_zeros(len(weights), n, n)
        rows = _slopes(self.kernels, self.variants, self.same, weights) @ self.basis
        curvature[:, :d], curvature[:, d:, :d] = rows, rows[..., d:].mT
        return curvature


class _Columns(Directions):
    """Of CP: every column is a CP format of rank one, and moves alone."""

    def __init__(self, kernels: CPKernels, theta: Tensor) -> None:
        starts, rank = len(theta), kernels.rank
        self.single = CPKernels(kernels.modes, (1,), kernels.columns)
        blocks = _blocks(kernels, theta)
        columns = torch.cat([block.mT for block in blocks], 2).flatten(0, 1)  # (S·R, Σ l_j)
        parts = [_complement(block.mT.reshape(-1, block.shape[1], 1)) for block in blocks]
        self.column_basis = _block_diagonal([part[..., None] for part in parts])
        owners = _repeated([part.shape[2] for part in parts])
        self.variants, self.same = _variants(self.single, columns, self.column_basis, owners)
        moves = _moved(self.single, self.variants)[..., 0].mT
        self.own = moves.unflatten(0, (starts, rank)).contiguous()
        self.shared = self.own.new_zeros(starts, rank, kernels.volume, 0)
        of_columns = self.column_basis.reshape(starts, rank, columns.shape[1], -1)
        spread = torch.diag_embed(of_columns.permute(0, 2, 3, 1)).transpose(3, 4)
        # (S, Σ l_j, k, R, R) to the order of θ, blocks of (l_j, R), and of the directions (R, k).
        spread = spread.permute(0, 1, 3, 4, 2)
        self.basis = spread.reshape(starts, columns.shape[1] * rank, -1)

    def bent(self, weights: Tensor) -> Tensor:
        """⟨weights, ∂²A⟩ (S, n, n): no two columns meet."""
        starts, _, rank = weights.shape
        of_columns = weights.mT.reshape(starts * rank, -1, 1)
        slopes = _slopes(self.single, self.variants, self.same, of_columns) @ self.column_basis
        k = slopes.shape[1]
        curvature = slopes.new_zeros(starts, rank, k, rank, k)
        curvature.diagonal(dim1=1, dim2=3).copy_(
            slopes.reshape(starts, rank, k, k).permute(0, 2, 3, 1)
        )
        return curvature.reshape(starts, rank * k, rank * k)


def directions(kernels: KernelFormat, theta: Tensor) -> Directions:
    """The directions of a format at points θ (S, N)."""
    if isinstance(kernels, CPKernels):
        return _Columns(kernels, theta)
    return _Chain(kernels, theta)


def _blocks(kernels: KernelFormat, theta: Tensor) -> list[Tensor]:
    """Blocks with a leading axis S."""
    parts = theta.split([math.prod(shape) for shape in kernels.shapes], 1)
    return [p.reshape(-1, *shape) for p, shape in zip(parts, kernels.shapes, strict=True)]


def _complement(matrices: Tensor) -> Tensor:
    """Orthonormal bases (S, a, a − b) of what is orthogonal to the columns of (S, a, b)."""
    basis: Tensor = torch.linalg.qr(matrices, mode="complete")[0]
    return basis[..., matrices.shape[2] :]


def _spread(across: Tensor, columns: int) -> Tensor:
    """Moves of a block (a, columns) by ``across`` (S, a, i) in one column: (S, a·columns, i, c)."""
    eye = torch.eye(columns, dtype=across.dtype)
    moves = across[:, :, None, :, None] * eye[:, None, :]
    return moves.flatten(1, 2)


def _block_diagonal(parts: Sequence[Tensor]) -> Tensor:
    """Parts (S, a, i, c) as one (S, Σ a, Σ i·c)."""
    flat = [part.flatten(2) for part in parts]
    rows, columns = (sum(part.shape[axis] for part in flat) for axis in (1, 2))
    basis = flat[0].new_zeros(len(flat[0]), rows, columns)
    top = left = 0
    for part in flat:
        _, height, width = part.shape
        basis[:, top : top + height, left : left + width] = part
        top, left = top + height, left + width
    return basis


def _original(kernels: KernelFormat) -> Callable[[Tensor], Tensor]:
    return lambda theta: kernels.kernels(kernels.unpack(theta))


def _variants(
    kernels: KernelFormat, theta: Tensor, basis: Tensor, owners: Tensor
) -> tuple[Tensor, Tensor]:
    """θ with the block of a direction replaced by it (S, d, N), and which entries that are."""
    same = owners[:, None] == _repeated([math.prod(shape) for shape in kernels.shapes])
    return torch.where(same, basis.mT, theta[:, None]), same


def _repeated(sizes: Sequence[int]) -> Tensor:
    """0, 1, … each as often as ``sizes`` says."""
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes, dtype=torch.int64))


def _moved(kernels: KernelFormat, variants: Tensor) -> Tensor:
    """A (S, d, L, R) at the variants."""
    if not variants.shape[1]:
        return variants.new_zeros(len(variants), 0, kernels.volume, kernels.rank)
    moved: Tensor = torch.func.vmap(torch.func.vmap(_original(kernels)))(variants)
    return moved


def _slopes(kernels: KernelFormat, variants: Tensor, same: Tensor, weights: Tensor) -> Tensor:
    """Slopes (S, d, N) of ⟨weights, A⟩ at the variants, without that of the replaced block."""
    if not variants.shape[1]:
        return torch.zeros_like(variants)
    original = _original(kernels)
    slope = torch.func.grad(lambda moved, held: (original(moved) * held).sum())
    slopes = torch.func.vmap(torch.func.vmap(slope, (0, None)))(variants, weights)
    return torch.where(same, 0.0, slopes)
