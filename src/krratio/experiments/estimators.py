"""Least squares over a low-rank class, from sufficient statistics, to second-order optimality.

The model is ŷ_t = b_t + ⟨Z, W_t⟩ with W = A·B of rank at most R as an L × (P·T) matrix, A the
kernels and B the fully connected weights; the objective is F(W) = Σ ‖y − ŷ‖² / (2n) +
(ridge/2)‖W‖². The Gram of mean-pooled patches is not a Kronecker product, so there is no closed
form, and F restricted to the class has local minima. What is computed here is the best of many
local minima, each found to rounding, and how many starts agree on it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor, nn

from krratio.experiments.charts import tangent_norm
from krratio.experiments.draws import Draws
from krratio.experiments.fits import Fit, Fits, diverges
from krratio.experiments.kernels import KernelFormat, kernel_format
from krratio.experiments.kronecker import is_kronecker, truncated
from krratio.experiments.network_fit import fit_network
from krratio.experiments.reduced import Problem
from krratio.experiments.search import SAME_LOSS, Search
from krratio.experiments.statistics import Statistics

__all__ = ["SAME_LOSS", "Fit", "Fits", "fit", "full"]

_EXCHANGES = 5
_ROUND = 5  # exchanges that start from the same best minimum, descending together


@dataclass(frozen=True)
class _Budget:
    max_iterations: int
    tolerance: float


@overload
def fit(
    statistics: Statistics,
    format: str | nn.Module,
    ranks: int | Sequence[int] | None = None,
    *,
    ridge: float = 0.0,
    starts: int = 10,
    exchanges: int | None = None,
    seed: int = 0,
    max_iterations: int = 200,
    tolerance: float = 1e-10,
) -> Fit: ...
@overload
def fit(
    statistics: Draws,
    format: str | nn.Module,
    ranks: int | Sequence[int] | None = None,
    *,
    ridge: float = 0.0,
    starts: int = 10,
    exchanges: int | None = None,
    seed: int = 0,
    max_iterations: int = 200,
    tolerance: float = 1e-10,
) -> Fits: ...


def fit(
    statistics: Statistics | Draws,
    format: str | nn.Module,  # noqa: A002 - the word of the theory
    ranks: int | Sequence[int] | None = None,
    *,
    ridge: float = 0.0,
    starts: int = 10,
    exchanges: int | None = None,
    seed: int = 0,
    max_iterations: int = 200,
    tolerance: float = 1e-10,
) -> Fit | Fits:
    """Best low-rank least-squares fit over several starts, for one data set or for many draws.

    Parameters
    ----------
    statistics : Statistics or Draws
        Of patches and outputs. With ``Draws`` all draws are fitted together.
    format : {"matrix", "tucker", "cp", "tt"} or torch.nn.Module
        What the kernels A may be: anything; a Tucker tensor (1×1 → spatial → 1×1); one outer
        product each (1×1 → depthwise); a tensor train (one convolution along each mode). Or any
        linear network as :func:`krratio.tensorize` takes it: its class of functions {W_X}, on
        statistics of the images themselves (modes (C, d_1, …, d_N) and one position).
    ranks : int or sequence of int
        R; for Tucker (R_1, …, R_N, R), with R_j = l_j for an uncompressed mode; for tensor trains
        (r_1, …, r_{N−1}, R); none for a network.
    ridge : float
        λ ≥ 0 on ‖W‖²/2. Positive where patches overlap, since their Gram is then singular; state it
        in units of ``statistics.scale``. For networks it is 0.
    starts : int
        Random starts, independent streams keyed by (seed, format, ranks, start). For a network, 0
        starts from its present weights alone.
    exchanges : int
        Further descents, in rounds of five, from the best minimum so far with one kernel exchanged
        for a random one; 5 by default. From R = 4 on they find lower minima than as many more
        starts would; at R = 1 they are more starts. Networks have none.
    seed : int
        Master seed.
    max_iterations : int
        Newton models per descent.
    tolerance : float
        On ``Fit.gradient_norm``.

    Returns
    -------
    Fit or Fits
        Of the lowest loss found. It is a local minimum to second order; that it is the global one
        is supported by ``share_of_starts_at_best``, not proved, except for the closed form.

    Raises
    ------
    ValueError
        If a rank is not attainable, the ridge is negative or too small for a singular Gram, a
        number of starts, exchanges or iterations is out of range, or a network has no free weight
        or more dimensions than the samples see.
    ShapeError
        If the statistics are not of the network's images and outputs.

    Notes
    -----
    Variable projection (Golub and Pereyra 1973) leaves a function on the Grassmannian, minimized by
    an exact trust-region Newton method (Absil, Mahony and Sepulchre 2008) with the full second
    derivative. One more descent starts from the truncated whitened unconstrained solution. For
    uncompressed kernels that is the global optimum if the Gram is a Kronecker product or there is
    one position, and then it is taken as it is. Networks: the same method in their own weights,
    nothing eliminated.
    """
    _check_at_least("starts", starts, 0 if isinstance(format, nn.Module) else 1)
    _check_at_least("exchanges", exchanges or 0, 0)
    _check_at_least("max_iterations", max_iterations, 1)
    if not tolerance > 0:
        raise ValueError(f"tolerance={tolerance}: a positive number is needed, such as 1e-10.")
    draws = Draws.of(statistics) if isinstance(statistics, Statistics) else statistics
    budget = _Budget(max_iterations, tolerance)
    if isinstance(format, nn.Module):
        if ranks is not None or ridge != 0 or exchanges:
            given = f"ranks={ranks}, ridge={ridge}, exchanges={exchanges}"
            raise ValueError(f"A network takes no ranks, no ridge and no exchanges; given {given}.")
        fits = fit_network(draws, format, starts=starts, seed=seed, **vars(budget))
    else:
        _check_ridge(statistics, ridge)
        _, P, T = draws.shape
        kernels = kernel_format(format, () if ranks is None else ranks, draws.modes, P * T)
        rounds = _EXCHANGES if exchanges is None else exchanges
        fits = _fit_format(draws, kernels, ridge, starts, rounds, seed, budget)
    return _single(statistics, fits) if isinstance(statistics, Statistics) else fits


def full(statistics: Statistics, *, ridge: float = 0.0) -> Fit:
    """Unconstrained ridge regression, in closed form: a lower bound on the loss of every class.

    Parameters
    ----------
    statistics : Statistics
        Of patches and outputs.
    ridge : float
        λ ≥ 0, as for ``fit``.

    Raises
    ------
    ValueError
        If the ridge is negative or too small for a singular Gram.
    """
    _check_ridge(statistics, ridge)
    problem = Problem(Draws.of(statistics), ridge)
    weight = problem.unconstrained()[0]
    loss, eigenvalues = statistics.loss(weight, ridge=ridge), statistics.eigenvalues + ridge
    slope = problem.slope(weight[None], torch.zeros(1, dtype=torch.int64)).norm()
    return Fit(
        weight=weight,
        bias=statistics.bias(weight),
        factors=(weight,),
        loss=loss,
        mse=statistics.mse(weight),
        iterations=0,
        converged=True,
        gradient_norm=float(slope / problem.slope_scale[0]),
        smallest_hessian_eigenvalue=float(eigenvalues[0] / eigenvalues[-1]),
        losses=(loss,),
        share_of_starts_at_best=1.0,
        origin="closed form",
        cancellation=1.0,
        diverged=False,
        format="full",
        ranks=(),
        ridge=ridge,
    )


def _fit_format(
    draws: Draws,
    kernels: KernelFormat,
    ridge: float,
    starts: int,
    exchanges: int,
    seed: int,
    budget: _Budget,
) -> Fits:
    if draws.gram.ndim == 3:  # a design each: nothing is shared
        parts = [
            _fit_format(one, kernels, ridge, starts, exchanges, seed, budget)
            for one in draws.separate()
        ]
        return Fits.concatenate(parts)
    problem = Problem(draws, ridge)
    search = Search(kernels, problem, seed, budget.max_iterations, budget.tolerance)
    if kernels.name == "matrix" and is_kronecker(problem.plain):
        return _closed_form(problem, kernels, ridge)
    search.run("random", [kernels.random(search.stream(start)) for start in range(starts)])
    losses = torch.stack(search.values, 1)
    spectral = truncated(problem, kernels.rank)[1]
    nearest = [kernels.pack(kernels.nearest(draw)) for draw in spectral]
    search.run_each("spectral", torch.stack(nearest)[None])
    for first in range(0, exchanges, _ROUND):
        numbers = range(first, min(first + _ROUND, exchanges))
        blocks = [kernels.unpack(row) for row in search.best.parameters]
        exchanged = [
            [kernels.pack(kernels.exchange(b, search.stream(starts + i))) for b in blocks]
            for i in numbers
        ]
        search.run_each("exchange", torch.stack([torch.stack(row) for row in exchanged]), first)
    return _fits(kernels, search, losses, ridge)


def _closed_form(problem: Problem, kernels: KernelFormat, ridge: float) -> Fits:
    rows = torch.arange(len(problem.half_total))
    weight, found = truncated(problem, kernels.rank)
    orthonormal = torch.linalg.qr(found)[0]
    # Across the class the residual is orthogonal to W, so ⟨W, GW⟩ = ⟨W, c⟩.
    explained = (problem.raw_cross.reshape(weight.shape) * weight).sum((1, 2, 3))
    value = problem.half_total - explained / 2
    slope = problem.slope(weight, rows)
    norm = tangent_norm(weight, slope, orthonormal, None) / problem.slope_scale
    draws = len(rows)
    return Fits(
        weight=weight,
        parameters=orthonormal.flatten(1),
        loss=value,
        losses=value[:, None],
        iterations=torch.zeros(draws, dtype=torch.int64),
        converged=torch.ones(draws, dtype=torch.bool),
        gradient_norm=norm,
        smallest_hessian_eigenvalue=torch.full((draws,), torch.nan, dtype=torch.float64),
        share_of_starts_at_best=torch.ones(draws, dtype=torch.float64),
        cancellation=_cancellation(kernels, orthonormal, weight),
        diverged=torch.zeros(draws, dtype=torch.bool),
        origin=("closed form",) * draws,
        format=kernels.name,
        ranks=kernels.ranks,
        ridge=ridge,
    )


def _fits(kernels: KernelFormat, search: Search, losses: Tensor, ridge: float) -> Fits:
    best = search.best
    blocks = torch.stack([kernels.kernels(kernels.unpack(row)) for row in best.parameters])
    cancellation = _cancellation(kernels, blocks, best.weight)
    minimum = search.converged()
    diverged = diverges(cancellation, minimum) & torch.tensor(not kernels.closed)
    at_best = torch.stack([search.reaches_best(value) for value in losses.unbind(1)], 1)
    return Fits(
        weight=best.weight,
        parameters=best.parameters,
        loss=best.value,
        losses=losses,
        iterations=best.iterations,
        converged=minimum & ~diverged,
        gradient_norm=best.gradient_norm,
        smallest_hessian_eigenvalue=best.lowest,
        share_of_starts_at_best=at_best.double().mean(1),
        cancellation=cancellation,
        diverged=diverged,
        origin=tuple(best.origin),
        format=kernels.name,
        ranks=kernels.ranks,
        ridge=ridge,
    )


def _cancellation(kernels: KernelFormat, blocks: Tensor, weight: Tensor) -> Tensor:
    """Σ_r ‖a_r‖‖b_r‖ / ‖W‖ (m,), for A (m, L, R)."""
    if kernels.name == "matrix":  # orthonormal columns
        sizes = torch.linalg.svdvals(weight.flatten(2))[:, : kernels.rank]
        terms = sizes.sum(1)
    else:
        fc = torch.linalg.lstsq(blocks, weight.flatten(2)).solution
        terms = (blocks.norm(dim=1) * fc.norm(dim=2)).sum(1)
    norm = weight.flatten(1).norm(dim=1)
    return torch.where(norm > 0, terms / norm.clamp_min(1e-300), 1.0)


def _single(statistics: Statistics, fits: Fits) -> Fit:
    weight = fits.weight[0]
    if fits.format == "network":
        factors: tuple[Tensor, ...] = (weight,)
    else:
        kernels = kernel_format(
            fits.format, fits.ranks, statistics.modes, math.prod(weight.shape[1:])
        )
        factors = kernels.factors(kernels.unpack(fits.parameters[0]), weight)
    return Fit(
        weight=weight,
        bias=statistics.bias(weight),
        factors=factors,
        loss=float(fits.loss[0]),
        mse=statistics.mse(weight),
        iterations=int(fits.iterations[0]),
        converged=bool(fits.converged[0]),
        gradient_norm=float(fits.gradient_norm[0]),
        smallest_hessian_eigenvalue=float(fits.smallest_hessian_eigenvalue[0]),
        losses=tuple(fits.losses[0].tolist()),
        share_of_starts_at_best=float(fits.share_of_starts_at_best[0]),
        origin=fits.origin[0],
        cancellation=float(fits.cancellation[0]),
        diverged=bool(fits.diverged[0]),
        format=fits.format,
        ranks=fits.ranks,
        ridge=fits.ridge,
    )


def _check_ridge(statistics: Statistics | Draws, ridge: float) -> None:
    if not (math.isfinite(ridge) and ridge >= 0):
        raise ValueError(f"ridge={ridge}: a finite number ≥ 0 is needed.")
    gram = statistics.gram
    eps, size = torch.finfo(torch.float64).eps, gram.shape[-1]
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    if ridge > size * eps * float(diagonal.sum(-1).max()):
        return  # the trace bounds the largest eigenvalue, so no eigenvalues are needed
    if isinstance(statistics, Statistics):
        eigenvalues = statistics.eigenvalues
    else:
        eigenvalues = torch.linalg.eigvalsh(gram)
    if bool((eigenvalues[..., 0] + ridge <= size * eps * eigenvalues[..., -1]).any()):
        floor = size * eps * eigenvalues[..., -1:]
        rank, scale = int((eigenvalues > floor).sum(-1).min()), float(diagonal.mean())
        raise ValueError(
            f"The Gram has rank {rank} of {size} (overlapping patches, or fewer "
            f"images than features), and ridge={ridge} leaves the minimum not unique. Give a "
            f"positive ridge, such as 1e-4 * statistics.scale = {1e-4 * scale:.3g}."
        )


def _check_at_least(name: str, value: int, smallest: int) -> None:
    if not isinstance(value, int) or value < smallest:
        raise ValueError(f"{name}={value}: an integer of at least {smallest} is needed.")
