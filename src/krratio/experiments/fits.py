"""What a least-squares fit says, of one data set and of many draws."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

__all__ = ["Fit", "Fits", "diverges"]

_DIVERGED = 1e3  # cancellation beyond which a fit of a class that is not closed is divergent
_UNFINISHED = 20.0  # the same where the descent found no minimum


@dataclass(frozen=True, eq=False)
class Fit:
    """A least-squares fit over a low-rank class.

    Attributes
    ----------
    weight : Tensor
        W (L, P, T) float64.
    bias : Tensor
        (T,) least-squares intercepts.
    factors : tuple of Tensor
        ``matrix``: A (L, R), the left singular vectors of W, and B (R, P, T). ``tucker``: factors
        (l_j, R_j) of the compressed modes, core (R_1, …, R_N, R), B. ``cp``: (l_j, R) per mode with
        columns of unit norm, B. ``tt``: cores (r_{j−1}, l_j, r_j), B. Contracting them gives
        ``weight``. ``full`` and ``network``: W itself.
    loss : float
        F(W), the minimized objective with the ridge.
    mse : float
        Σ ‖y − ŷ‖² / (n·T), without the ridge, as ``torch.nn.functional.mse_loss`` counts.
    iterations : int
        Newton models built on the way to this minimum.
    converged : bool
        ``gradient_norm`` is at most the tolerance, no Hessian eigenvalue is negative beyond
        rounding (a local minimum, not a saddle), and the fit has not diverged. A network that ends
        at a singular member of its class, where ∂W/∂θ has less than its generic rank, has converged
        if the fit is perfect or if F curves up along the missing directions as well (a fold, which
        bounds the class). With a channel of zeros it does not: a descent cannot leave it.
    gradient_norm : float
        ‖Π ∂F/∂W‖ / ‖∂F/∂W at W = 0‖, Frobenius norms, Π the orthogonal projection on the tangent
        space of the class at W. It depends on W alone: not on the factorization, not on units.
    smallest_hessian_eigenvalue : float
        Of the Hessian with gauge removed (and B eliminated, in formats), divided by its largest in
        magnitude; measured in the solver's frame, so only its sign is intrinsic. NaN if no kernel
        can move and for a closed form.
    losses : tuple of float
        F at the end of each random start.
    share_of_starts_at_best : float
        Fraction of the random starts whose loss is within ``SAME_LOSS``·loss of the best found
        (plus 1e-12 of the loss at W = 0, which matters for noiseless data only).
    origin : str
        What found the best: ``"random 3"``, ``"spectral 0"``, ``"exchange 0"``, ``"closed form"``.
    cancellation : float
        Σ_r ‖a_r‖‖b_r‖ / ‖W‖ over rank-one terms; large where terms nearly cancel. For a network
        Σ_g ‖W_g‖ / ‖W‖ over what passes through each group of a grouped (depthwise) convolution,
        for the convolution where it is largest, and 1 without one: no gauge turns one group's
        term into another's.
    diverged : bool
        The class need not be closed (CP, grouped convolutions) and ``cancellation`` is beyond
        1000, or beyond 20 where the descent ended at no minimum: factors grow without bound while
        the loss creeps down, and a minimum may not exist. The gradient also vanishes along such a
        path, so a small ``gradient_norm`` does not contradict it.
    format : str
    ranks : tuple of int
    ridge : float
    """

    weight: Tensor
    bias: Tensor
    factors: tuple[Tensor, ...]
    loss: float
    mse: float
    iterations: int
    converged: bool
    gradient_norm: float
    smallest_hessian_eigenvalue: float
    losses: tuple[float, ...]
    share_of_starts_at_best: float
    origin: str
    cancellation: float
    diverged: bool
    format: str
    ranks: tuple[int, ...]
    ridge: float


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


def diverges(cancellation: Tensor, minimum: Tensor) -> Tensor:
    """Whether fits of a class that is not closed diverge, see :class:`Fit`.

    ``minimum`` says where the descent ended at a minimum to second order.
    """
    return cancellation > torch.where(minimum, _DIVERGED, _UNFINISHED)
