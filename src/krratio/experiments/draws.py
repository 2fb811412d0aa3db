"""Many draws of the noise on one design, or many designs: what a batch of fits is about."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from krratio.errors import NonFiniteError, ShapeError
from krratio.experiments.statistics import Statistics

__all__ = ["Draws"]

_ROUNDING = 1e-12  # of the trace: asymmetries and negative eigenvalues up to here are rounding
_EXPLAINED = 1e-6  # of the variance: what a design may explain beyond it


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

    Raises
    ------
    ShapeError
        The shapes do not fit together.
    TypeError
        A tensor is not float64.
    NonFiniteError
        A tensor holds NaN or infinity.
    ValueError
        They are moments of no data: the Gram is asymmetric or indefinite, a variance negative, or
        the design explains more than the variance.
    """

    gram: Tensor
    cross: Tensor
    total: Tensor
    modes: tuple[int, ...]
    positions: int

    def __post_init__(self) -> None:
        if self.cross.ndim != 3 or not len(self.cross):
            raise ShapeError(
                f"cross has shape {tuple(self.cross.shape)}; (m, L·P, T) with m ≥ 1 is needed."
            )
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
        _check_moments(self.gram, self.cross, self.total)

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
    def from_data(
        cls, X: Tensor, Y: Tensor, *, modes: tuple[int, ...], positions: int = 1
    ) -> "Draws":
        """Regressions of Y on X as they are, without intercepts.

        Parameters
        ----------
        X : Tensor
            (n, F) float64, one design for all, or (m, n, F).
        Y : Tensor
            (m, n, T) float64.
        modes, positions : tuple of int, int
            Kernel modes, channels first, and P; their product is F.

        Raises
        ------
        ShapeError
            X and Y have other shapes.
        """
        if Y.ndim != 3 or X.shape[:-1] not in (Y.shape[:2], Y.shape[1:2]) or not Y.shape[1]:
            raise ShapeError(
                f"X has shape {tuple(X.shape)} and Y {tuple(Y.shape)}; (n, F) or (m, n, F), and "
                "(m, n, T) with n ≥ 1 are needed."
            )
        n = Y.shape[1]
        return cls(X.mT @ X / n, X.mT @ Y / n, Y.square().mean(1), tuple(modes), positions)

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

        Raises
        ------
        ShapeError
            Gram, weight and modes do not fit together.
        TypeError
            Gram or weight is not float64.
        NonFiniteError
            Gram or weight holds NaN or infinity.
        ValueError
            The noise is negative or not finite, or a number of samples or draws is below 1.

        Notes
        -----
        ``total`` holds the signal and the part of the noise that the design can see; the rest is
        the same for every W, so that fits do not depend on it.
        """
        if not (math.isfinite(noise) and noise >= 0):
            raise ValueError(f"noise={noise}: a finite number ≥ 0 is needed.")
        for name, count in (("samples", samples), ("draws", draws)):
            if count < 1:
                raise ValueError(f"{name}={count}: at least 1 is needed.")
        features = math.prod(weight.shape[:-1])
        fits = weight.ndim == 3 and math.prod(modes) == len(weight)
        if not fits or gram.shape != (features, features):
            raise ShapeError(
                f"weight has shape {tuple(weight.shape)}, gram {tuple(gram.shape)} and modes are "
                f"{modes}; (L, P, T), (L·P, L·P) and modes of product L are needed."
            )
        for name, value in (("gram", gram), ("weight", weight)):
            if value.dtype != torch.float64:
                raise TypeError(f"{name} is {value.dtype}; convert it with .double() (float64).")
            if not bool(torch.isfinite(value).all()):
                raise NonFiniteError(f"{name} holds NaN or infinity.")
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


def _check_moments(gram: Tensor, cross: Tensor, total: Tensor) -> None:
    """Refuse what no data have as their moments."""
    size = gram.diagonal(dim1=-2, dim2=-1).abs().sum(-1)  # bounds eigenvalues from above
    if bool(((gram - gram.mT).abs().amax((-2, -1)) > _ROUNDING * size).any()):
        raise ValueError("The Gram is not symmetric: give ZᵀZ/n, or (gram + gram.mT) / 2 of it.")
    shift = (_ROUNDING * size).clamp_min(torch.finfo(torch.float64).tiny)
    eye = torch.eye(gram.shape[-1], dtype=torch.float64)
    root, failed = torch.linalg.cholesky_ex(gram + shift[..., None, None] * eye)
    if bool((failed > 0).any()):
        raise ValueError("The Gram has negative eigenvalues: ZᵀZ/n has none.")
    if gram.ndim == 2:  # one solve for all draws
        flat = cross.transpose(0, 1).flatten(1)
        whitened = torch.linalg.solve_triangular(root, flat, upper=False).unflatten(1, total.shape)
        explained = whitened.square().sum(0)
    else:
        explained = torch.linalg.solve_triangular(root, cross, upper=False).square().sum(1)
    bad = (total < 0) | (explained > total * (1 + _EXPLAINED))
    if bool(bad.any()):
        raise ValueError(
            f"total is {float(total[bad][0]):.6g} and the design alone explains "
            f"{float(explained[bad][0]):.6g} of it: give Σ y²/n of the same samples."
        )
