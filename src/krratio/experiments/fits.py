"""The fits of many draws."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

__all__ = ["Fits"]


@dataclass(frozen=True, eq=False)
class Fits:
    """Least-squares fits of m draws; every tensor has the leading axis m. See :class:`Fit`.

    Attributes
    ----------
    weight : Tensor
        (m, L, P, T) float64.
    parameters : Tensor
        (m, N): the format's blocks, balanced and flattened; for a network its weights.
    loss : Tensor
        (m,).
    losses : Tensor
        (m, starts), at the end of each random start.
    iterations, converged, gradient_norm, smallest_hessian_eigenvalue : Tensor
        (m,), of the best start.
    share_of_starts_at_best : Tensor
        (m,).
    cancellation, diverged : Tensor
        (m,).
    origin : tuple of str
        What found the best of each draw.
    format : str
        ``"network"`` for the class of a network.
    ranks : tuple of int
    ridge : float
    """

    weight: Tensor
    parameters: Tensor
    loss: Tensor
    losses: Tensor
    iterations: Tensor
    converged: Tensor
    gradient_norm: Tensor
    smallest_hessian_eigenvalue: Tensor
    share_of_starts_at_best: Tensor
    cancellation: Tensor
    diverged: Tensor
    origin: tuple[str, ...]
    format: str
    ranks: tuple[int, ...]
    ridge: float

    def __len__(self) -> int:
        return len(self.loss)

    @classmethod
    def concatenate(cls, parts: Sequence["Fits"]) -> "Fits":
        """The draws of all parts, which share format, ranks and ridge."""
        joined = {
            field.name: torch.cat([getattr(part, field.name) for part in parts])
            for field in fields(cls)
            if isinstance(getattr(parts[0], field.name), Tensor)
        }
        origin = tuple(name for part in parts for name in part.origin)
        return replace(parts[0], origin=origin, **joined)  # type: ignore[arg-type]
