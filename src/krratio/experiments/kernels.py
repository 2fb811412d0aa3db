"""Kernel formats: what shapes the stacked kernels A (L × R) may take, as maps A = A(θ)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "CPKernels",
    "FreeKernels",
    "KernelFormat",
    "TTKernels",
    "TuckerKernels",
    "kernel_format",
]


class KernelFormat(ABC):
    """A map from parameter blocks to kernels A (L, R), rows in C order over the kernel modes.

    Attributes
    ----------
    name : str
        The word that ``fit`` knows it by.
    modes : tuple of int
        Kernel modes, channels first.
    ranks : tuple of int
        As given by the caller; the last one is R.
    closed : bool
        Whether {A(θ)·B} is a closed set, so that a minimum exists for every positive ridge.
    """

    name: str
    closed: bool

    def __init__(self, modes: tuple[int, ...], ranks: tuple[int, ...], columns: int) -> None:
        self.modes, self.ranks, self.columns = modes, ranks, columns
        self._check()

    @property
    def volume(self) -> int:
        """L, the number of kernel entries."""
        return math.prod(self.modes)

    @property
    def rank(self) -> int:
        """R, the number of kernels."""
        return self.ranks[-1]

    @abstractmethod
    def _check(self) -> None:
        """Refuse ranks that the format cannot attain."""

    @property
    @abstractmethod
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the parameter blocks."""

    @abstractmethod
    def kernels(self, blocks: Sequence[Tensor]) -> Tensor:
        """A (L, R) from the blocks; smooth, and safe under ``torch.func.vmap``."""

    @abstractmethod
    def balance(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """Blocks with the same range of A and no runaway scale (the gauge freedom used up)."""

    @abstractmethod
    def nearest(self, kernels: Tensor) -> list[Tensor]:
        """Blocks whose kernels lie near a given A (L, R): a start, not a projection."""

    def exchange(self, blocks: Sequence[Tensor], generator: np.random.Generator) -> list[Tensor]:
        """One random direction of one block replaced by another one, the rest kept."""
        changed = list(blocks)
        chosen = int(generator.integers(len(blocks)))
        block = changed[chosen]
        matrix = block.reshape(-1, block.shape[-1])
        old = torch.from_numpy(generator.standard_normal(matrix.shape[1]))
        new = torch.from_numpy(generator.standard_normal(matrix.shape[0]))
        old, new = old / old.norm(), new / new.norm()
        changed[chosen] = (matrix + torch.outer(new - matrix @ old, old)).reshape(block.shape)
        return self.balance(changed)

    def factors(self, blocks: Sequence[Tensor], weight: Tensor) -> tuple[Tensor, ...]:
        """Blocks and the B (R, P, T) with which they contract to ``weight`` (L, P, T)."""
        solved = torch.linalg.lstsq(self.kernels(blocks), weight.flatten(1)).solution
        return (*blocks, solved.reshape(self.rank, *weight.shape[1:]))

    def random(self, generator: np.random.Generator) -> list[Tensor]:
        """Balanced blocks from independent standard normal entries."""
        return self.balance(
            [torch.from_numpy(generator.standard_normal(shape)) for shape in self.shapes]
        )

    def pack(self, blocks: Sequence[Tensor]) -> Tensor:
        """One vector θ from the blocks."""
        return torch.cat([block.reshape(-1) for block in blocks])

    def unpack(self, theta: Tensor) -> list[Tensor]:
        """Inverse of ``pack``."""
        sizes = [math.prod(shape) for shape in self.shapes]
        parts = torch.split(theta, sizes)
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]


class FreeKernels(KernelFormat):
    """Uncompressed kernels: W is any L × (P·T) matrix of rank at most R."""

    name = "matrix"
    closed = True

    def _check(self) -> None:
        if len(self.ranks) != 1:
            raise ValueError(f"format 'matrix' takes one rank R, given {self.ranks}.")
        _check_rank("R", self.rank, min(self.volume, self.columns), "min(L, P·T)")

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the parameter blocks."""
        return ((self.volume, self.rank),)

    def kernels(self, blocks: Sequence[Tensor]) -> Tensor:
        """A (L, R) from the blocks."""
        return blocks[0]

    def balance(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """Blocks with orthonormal columns and the same range of A."""
        return [torch.linalg.qr(blocks[0])[0]]

    def nearest(self, kernels: Tensor) -> list[Tensor]:
        """Blocks whose kernels lie near a given A (L, R)."""
        return self.balance([kernels])

    def factors(self, blocks: Sequence[Tensor], weight: Tensor) -> tuple[Tensor, ...]:
        """A: left singular vectors of W, largest entry positive, so that it depends on W alone."""
        del blocks
        left = torch.linalg.svd(weight.flatten(1), full_matrices=True)[0][:, : self.rank]
        peaks = left.gather(0, left.abs().argmax(0, keepdim=True))
        left = left * peaks.sign()
        return left, (left.mT @ weight.flatten(1)).reshape(self.rank, *weight.shape[1:])


class TuckerKernels(KernelFormat):
    """A = G ×_1 H_1 … ×_N H_N: "1×1 → spatial → 1×1" where only the channel mode is compressed.

    A mode with R_j = l_j is uncompressed and has no factor. Blocks: the factors (l_j, R_j) of the
    compressed modes, then the core (R_1, …, R_N, R).
    """

    name = "tucker"
    closed = True

    def _check(self) -> None:
        if len(self.ranks) != len(self.modes) + 1:
            raise ValueError(
                f"format 'tucker' takes one rank per kernel mode {self.modes} and R, that is "
                f"{len(self.modes) + 1} ranks, given {self.ranks}. If the patches came with "
                "merged modes, pass modes=(C, …) to Statistics.from_batches."
            )
        for axis, (rank, mode) in enumerate(zip(self.ranks, self.modes, strict=False)):
            if rank != mode:  # an uncompressed mode has no factor to attain anything
                others = math.prod(r for j, r in enumerate(self.ranks) if j != axis)
                bound = "min(l_j, product of the other ranks)"
                _check_rank(f"R_{axis + 1}", rank, min(mode, others), bound)
        largest = min(math.prod(self.ranks[:-1]), self.columns)
        _check_rank("R", self.rank, largest, "min(R_1·…·R_N, P·T)")

    @property
    def compressed(self) -> list[int]:
        """Axes that have a factor."""
        return [j for j, (r, m) in enumerate(zip(self.ranks, self.modes, strict=False)) if r < m]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the parameter blocks."""
        return (*((self.modes[j], self.ranks[j]) for j in self.compressed), self.ranks)

    def kernels(self, blocks: Sequence[Tensor]) -> Tensor:
        """A (L, R) from the blocks."""
        *factors, core = blocks
        for axis, factor in zip(self.compressed, factors, strict=True):
            core = _apply(factor, core, axis)
        return core.reshape(-1, core.shape[-1])

    def balance(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """Blocks with orthonormal columns and the same range of A."""
        *factors, core = blocks
        orthonormal = []
        for axis, factor in zip(self.compressed, factors, strict=True):
            Q, triangle = torch.linalg.qr(factor)
            orthonormal.append(Q)
            core = _apply(triangle, core, axis)
        columns = torch.linalg.qr(core.reshape(-1, self.rank))[0]
        return [*orthonormal, columns.reshape(self.ranks)]

    def nearest(self, kernels: Tensor) -> list[Tensor]:
        """Blocks whose kernels lie near a given A (L, R)."""
        core = kernels.reshape(*self.modes, self.rank)
        factors = []
        for axis in self.compressed:
            unfolded = core.movedim(axis, 0).flatten(1)
            factors.append(torch.linalg.svd(unfolded)[0][:, : self.ranks[axis]])
            core = _apply(factors[-1].mT, core, axis)
        return self.balance([*factors, core])


class CPKernels(KernelFormat):
    """Every kernel is an outer product: "1×1 → depthwise" for the modes (C, ∏l).

    Blocks: one factor (l_j, R) per kernel mode, columns of unit norm after balancing.
    """

    name = "cp"
    closed = False

    def _check(self) -> None:
        if len(self.ranks) != 1:
            raise ValueError(f"format 'cp' takes one rank R, given {self.ranks}.")
        if len(self.modes) == 1:
            raise ValueError(
                f"format 'cp' needs at least two kernel modes, given {self.modes}. If the patches "
                "came with merged modes, pass modes=(C, …) to Statistics.from_batches; for one "
                "channel and merged spatial modes it is format 'matrix'."
            )
        _check_rank("R", self.rank, self.volume, "L")

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the parameter blocks."""
        return tuple((mode, self.rank) for mode in self.modes)

    def kernels(self, blocks: Sequence[Tensor]) -> Tensor:
        """A (L, R) from the blocks."""
        result = blocks[0]
        for factor in blocks[1:]:
            result = (result[:, None] * factor[None]).reshape(-1, self.rank)
        return result

    def balance(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """Blocks with columns of unit norm."""
        return [block / block.norm(dim=0) for block in blocks]

    def exchange(self, blocks: Sequence[Tensor], generator: np.random.Generator) -> list[Tensor]:
        """One kernel replaced by a random one; a mixture of two would leave the format."""
        column = int(generator.integers(self.rank))
        changed = [block.clone() for block in blocks]
        for block in changed:
            block[:, column] = torch.from_numpy(generator.standard_normal(len(block)))
        return self.balance(changed)

    def nearest(self, kernels: Tensor) -> list[Tensor]:
        """Blocks whose kernels lie near a given A (L, R)."""
        tensor = kernels.reshape(*self.modes, self.rank)
        blocks = []
        for axis in range(len(self.modes)):
            unfolded = tensor.movedim((-1, axis), (0, 1)).flatten(2)
            blocks.append(torch.linalg.svd(unfolded)[0][..., 0].mT)
        return self.balance(blocks)


class TTKernels(KernelFormat):
    """A chain of convolutions, one along each kernel mode: a tensor train that ends in R.

    Blocks: cores (r_{j−1}, l_j, r_j) with r_0 = 1 and r_N = R, left-orthogonal after balancing.
    """

    name = "tt"
    closed = True

    def _check(self) -> None:
        if len(self.ranks) != len(self.modes):
            raise ValueError(
                f"format 'tt' takes one bond behind each kernel mode {self.modes}, the last one R, "
                f"that is {len(self.modes)} ranks, given {self.ranks}. If the patches came with "
                "merged modes, pass modes=(C, …) to Statistics.from_batches."
            )
        ends = (1, *self.ranks, self.columns)
        for j, mode in enumerate(self.modes):
            after = self.modes[j + 1] * ends[j + 2] if j + 1 < len(self.modes) else self.columns
            name = "R" if j + 1 == len(self.modes) else f"r_{j + 1}"
            bound = "min(what enters its core, what leaves the next)"
            _check_rank(name, ends[j + 1], min(ends[j] * mode, after), bound)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the parameter blocks."""
        ends = (1, *self.ranks)
        return tuple((ends[j], mode, ends[j + 1]) for j, mode in enumerate(self.modes))

    def kernels(self, blocks: Sequence[Tensor]) -> Tensor:
        """A (L, R) from the blocks."""
        result = blocks[0].reshape(-1, blocks[0].shape[-1])
        for core in blocks[1:]:
            result = (result @ core.reshape(core.shape[0], -1)).reshape(-1, core.shape[-1])
        return result

    def balance(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """Blocks with orthonormal columns and the same range of A."""
        balanced, carried = [], torch.eye(1, dtype=torch.float64)
        for core in blocks:
            merged = (carried @ core.reshape(core.shape[0], -1)).reshape(-1, core.shape[-1])
            Q, carried = torch.linalg.qr(merged)
            balanced.append(Q.reshape(core.shape))
        return balanced

    def nearest(self, kernels: Tensor) -> list[Tensor]:
        """Blocks whose kernels lie near a given A (L, R)."""
        cores, left = [], kernels.reshape(1, -1)
        for before, mode, rank in self.shapes:
            U, sizes, V = torch.linalg.svd(left.reshape(before * mode, -1), full_matrices=False)
            cores.append(U[:, :rank].reshape(before, mode, rank))
            left = sizes[:rank, None] * V[:rank]
        return self.balance(cores)


_FORMATS: dict[str, type[KernelFormat]] = {
    kind.name: kind for kind in (FreeKernels, TuckerKernels, CPKernels, TTKernels)
}


def kernel_format(
    name: str, ranks: int | Sequence[int], modes: tuple[int, ...], columns: int
) -> KernelFormat:
    """The format called ``name`` with checked ranks.

    Parameters
    ----------
    name : str
        ``"matrix"``, ``"tucker"``, ``"cp"`` or ``"tt"``.
    ranks : int or sequence of int
        R; (R_1, …, R_N, R) for Tucker; (r_1, …, r_{N−1}, R) for tensor trains.
    modes : tuple of int
        Kernel modes, channels first.
    columns : int
        P·T, the width of W as a matrix.

    Raises
    ------
    ValueError
        If the name is unknown, or a rank is missing, below 1 or not attainable.
    """
    if name not in _FORMATS:
        raise ValueError(f"format={name!r} is unknown; allowed: {', '.join(map(repr, _FORMATS))}.")
    given = tuple(ranks) if isinstance(ranks, Sequence) else (ranks,)
    if any(isinstance(rank, bool) or not isinstance(rank, int) for rank in given):
        raise TypeError(f"ranks={ranks!r}: an integer or a sequence of integers is needed.")
    return _FORMATS[name](modes, given, columns)


def _check_rank(symbol: str, rank: int, largest: int, bound: str) -> None:
    if not 1 <= rank <= largest:
        raise ValueError(
            f"{symbol} = {rank} is not attainable; allowed are 1 to {largest} = {bound}. A larger "
            "rank gives the same functions as the largest one."
        )


def _apply(matrix: Tensor, tensor: Tensor, axis: int) -> Tensor:
    """Mode product: ``matrix`` (a, b) on ``axis`` of size b."""
    product: Tensor = torch.tensordot(matrix, tensor, dims=([1], [axis]))
    return product.movedim(0, axis)
