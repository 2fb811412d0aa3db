"""Many draws of the noise on one design, or many designs: what a batch of fits is about."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from krratio.errors import NonFiniteError, ShapeError
from krratio.experiments.statistics import Statistics

__all__ = ["Draws"]


@dataclass(frozen=True, eq=False)
class Draws:
    """Sufficient statistics of m regressions that are solved together.

    With a fixed design the Gram is shared by all draws, and what a draw of Gaussian noise adds to
    the cross moments is itself Gaussian: N(0, σ² Gram / n). So a replicate costs one vector.

    Attributes
    ----------
    gram : Tensor
        (L·P, L·P) float64, shared, or (m, L·P, L·P): one design for each draw.
    cross : Tensor
        (m, L·P, T) float64.
    total : Tensor
        (m, T) float64, variance of each output.
    modes : tuple of int
        Kernel modes, channels first, as in :class:`Statistics`.
    positions : int
        P.
    """

    gram: Tensor
    cross: Tensor
    total: Tensor
    modes: tuple[int, ...]
    positions: int

    def __post_init__(self) -> None:
        features = math.prod(self.modes) * self.positions
        draws, outputs = self.cross.shape[0], self.cross.shape[-1]
        square = (features, features)
        grams = (square, (draws, *square))
        if tuple(self.gram.shape) not in grams or self.cross.shape != (draws, features, outputs):
            raise ShapeError(
                f"gram has shape {tuple(self.gram.shape)} and cross {tuple(self.cross.shape)}; "
                f"kernel modes {self.modes} and {self.positions} positions need {square} or "
                f"(m, {features}, {features}), and (m, {features}, T)."
            )
        if tuple(self.total.shape) != (draws, outputs):
            raise ShapeError(
                f"total has shape {tuple(self.total.shape)}, {draws} draws of {outputs} outputs "
                f"need {(draws, outputs)}."
            )
        for name in ("gram", "cross", "total"):
            value: Tensor = getattr(self, name)
            if value.dtype != torch.float64:
                raise TypeError(f"{name} is {value.dtype}; convert it with .double() (float64).")
            if not bool(torch.isfinite(value).all()):
                raise NonFiniteError(f"{name} holds NaN or infinity; look for it in Z and Y.")

    def __len__(self) -> int:
        return len(self.cross)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(L, P, T): kernel volume with channels, positions, outputs; the shape of a weight."""
        return math.prod(self.modes), self.positions, self.cross.shape[-1]

    def __getitem__(self, which: slice) -> "Draws":
        """Some of the draws."""
        gram = self.gram if self.gram.ndim == 2 else self.gram[which]
        return replace(self, gram=gram, cross=self.cross[which], total=self.total[which])

    def separate(self) -> list["Draws"]:
        """Each draw with its own design, where they have one each."""
        return [replace(self[i : i + 1], gram=self.gram[i]) for i in range(len(self))]

    @classmethod
    def of(cls, statistics: Statistics) -> "Draws":
        """The one draw that ``statistics`` are."""
        return cls(
            statistics.gram,
            statistics.cross[None],
            statistics.total[None],
            statistics.modes,
            statistics.positions,
        )

    @classmethod
    def stack(cls, statistics: Sequence[Statistics]) -> "Draws":
        """Regressions with a design each.

        Raises
        ------
        ShapeError
            There are none, or their shapes differ.
        """
        if len({(s.modes, s.positions, s.shape) for s in statistics}) != 1:
            found = sorted({s.shape for s in statistics})
            raise ShapeError(f"One shape (L, P, T) for all statistics is needed, given {found}.")
        gram, cross, total = (
            torch.stack([getattr(s, name) for s in statistics])
            for name in ("gram", "cross", "total")
        )
        return cls(gram, cross, total, statistics[0].modes, statistics[0].positions)

    @classmethod
    def gaussian(
        cls,
        gram: Tensor,
        weight: Tensor,
        *,
        samples: int,
        noise: float,
        draws: int,
        modes: tuple[int, ...],
        generator: torch.Generator,
    ) -> "Draws":
        """Draw y = ⟨Z, weight⟩ + σ·noise, m times, on one fixed design.

        Parameters
        ----------
        gram : Tensor
            (L·P, L·P) float64, ZᵀZ/n.
        weight : Tensor
            (L, P, T) the truth.
        samples : int
            n.
        noise : float
            σ ≥ 0.
        draws : int
            m.
        modes : tuple of int
            Kernel modes, channels first.
        generator : torch.Generator
            From :func:`krratio.experiments.seeds.torch_stream`.

        Notes
        -----
        ``total`` holds the signal and the part of the noise that the design can see; the rest is
        the same for every W, so that fits do not depend on it.
        """
        root = factor(gram)  # (rank, L·P)
        flat = weight.reshape(len(gram), -1)
        scale = noise / math.sqrt(samples)
        seen = scale * torch.randn(
            draws, len(root), flat.shape[1], generator=generator, dtype=torch.float64
        )
        seen = seen + root @ flat
        return cls(gram, root.mT @ seen, seen.square().sum(1), modes, weight.shape[1])


def factor(gram: Tensor) -> Tensor:
    """S (rank, F) with SᵀS = gram, from its eigenvalues above rounding."""
    values, vectors = torch.linalg.eigh(gram)
    kept = values > len(gram) * torch.finfo(torch.float64).eps * values[-1]
    root: Tensor = (vectors[:, kept] * values[kept].sqrt()).mT
    return root
