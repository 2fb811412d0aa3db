"""CP terms of the least norm at a given error: no terms that cancel each other."""

import math

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

from krratio.rewriting.decomposing.terms import Factors, energies, gram, products

__all__ = ["stable"]

RESOLVED = 1e-6  # relative error below which squared errors are lost in rounding

_ORTHOGONAL = 1e-9  # relative difference of both energies below which no terms cancel
_SWEEPS = 30
_SETTLED = 1e-3  # relative gain of a sweep at which they end


def stable(kernel: Float[Tensor, "K C l"], factors: Factors, limit: float) -> Factors:
    """Terms with the least sum of squared norms whose error is at most ``limit``.

    Parameters
    ----------
    kernel
        float64, of norm one.
    factors
        (K, R), (C, R), (l, R), float64, with an error of at most ``limit``.
    limit
        Error allowed, below 1. Under 1e-6, where squared errors cannot be told apart, and for
        orthogonal terms, nothing is corrected.

    Returns
    -------
    list of Tensor
        Factors of the same shapes, the norm of each term spread evenly over its three vectors.

    Notes
    -----
    Error-preserving correction (Phan et al. 2020, *Stable low-rank tensor decomposition for
    compression of convolutional neural network*), alternating over the factors. With unit columns
    in the two others the norms of the terms are those of the third's columns, so that each step
    is the least norm in a ball of least squares, solved exactly; no step makes the sum larger.
    """
    terms, whole = energies(factors)
    if limit < RESOLVED or terms <= (1 + _ORTHOGONAL) * whole:
        return _balanced(factors)
    factors, before = list(factors), math.inf
    for _ in range(_SWEEPS):
        for mode in range(3):
            factors = _step(kernel, factors, mode, limit)
        now = energies(factors)[0]
        if before - now <= _SETTLED * now:
            break
        before = now
    return _balanced(factors)


def _step(kernel: Float[Tensor, "K C l"], factors: Factors, mode: int, limit: float) -> Factors:
    """The best factor of one mode for the directions of the others."""
    others = [_directions(f) if i != mode else f for i, f in enumerate(factors)]
    values, vectors = torch.linalg.eigh(gram(others, without=mode))
    kept = values > 1e-12 * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    turned = products(kernel, others, mode) @ vectors
    explained = turned.square().sum(0) / values
    room = limit**2 - (float(kernel.square().sum()) - float(explained.sum()))
    if room <= 0:  # what the dropped directions explained is needed: stay
        return factors
    shrunk = _multiplier(values.numpy(), explained.numpy(), room)
    others[mode] = turned * (shrunk / (1 + shrunk * values)) @ vectors.mT
    return others


def _multiplier(values: np.ndarray, explained: np.ndarray, room: float) -> float:
    """The root mu of sum of explained / (1 + mu · values)² = room.

    At (√(Σ explained / room) - 1) / value the sum is above ``room`` for the largest value and
    below it for the smallest, which brackets the root.
    """
    spare = math.sqrt(float(explained.sum()) / room) - 1
    if spare <= 0:
        return 0.0

    def excess(log_mu: float) -> float:
        return float((explained / (1 + math.exp(log_mu) * values) ** 2).sum()) - room

    low, high = math.log(spare / values.max()), math.log(spare / values.min())
    if excess(low) <= 0 or excess(high) >= 0:  # all values alike, up to rounding
        return math.exp(high)
    return math.exp(brentq(excess, low, high, xtol=1e-14, rtol=1e-14))


def _directions(factor: Float[Tensor, "m R"]) -> Float[Tensor, "m R"]:
    """Columns of norm one; a zero column becomes the first unit vector."""
    norms = factor.norm(dim=0)
    first = torch.eye(len(factor), 1, dtype=factor.dtype, device=factor.device)
    return torch.where(norms > 0, factor / norms.clamp_min(1e-300), first)


def _balanced(factors: Factors) -> Factors:
    """The same terms, each with three vectors of equal norm."""
    norms = torch.stack([factor.norm(dim=0) for factor in factors])
    even = norms.log().mean(0).exp()
    return [_directions(factor) * even for factor in factors]
