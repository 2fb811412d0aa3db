"""How many samples the law needs, in the sample and out of it: a new Gaussian design each time."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from krratio.experiments.draws import Draws
from krratio.experiments.estimators import SAME_LOSS, fit
from krratio.experiments.intervals import mean_interval
from krratio.experiments.law_cases import LawCase, true_weight, with_truth
from krratio.experiments.seeds import torch_stream
from krratio.theory.dimension import intrinsic_dimension

__all__ = ["onset", "random_designs", "rates"]


def random_designs(
    weight: Tensor,
    *,
    samples: int,
    noise: float,
    draws: int,
    modes: tuple[int, ...],
    generator: torch.Generator,
) -> Draws:
    """Regressions y = ⟨X, weight⟩ + σ ε, each with a standard Gaussian design of its own.

    Parameters
    ----------
    weight : Tensor
        (D, 1, T).
    samples, noise, draws
        n, σ and m.
    modes
        (C, d_1, …, d_N).
    generator
        From :func:`krratio.experiments.seeds.torch_stream`.
    """
    D, _, T = weight.shape
    X = torch.randn(draws, samples, D, generator=generator, dtype=torch.float64)
    errors = torch.randn(draws, samples, T, generator=generator, dtype=torch.float64)
    return Draws.from_data(X, X @ weight[:, 0] + noise * errors, modes=modes)


def onset(
    cases: Sequence[LawCase],
    *,
    multiples: Sequence[float],
    replicates: int,
    noise: float,
    seed: int,
    searches: int = 0,
    starts: int = 10,
    searched: float = 3.0,
) -> pd.DataFrame:
    """Mean of n · err² / (σ² d) in the sample and out of it, against n / d.

    Parameters
    ----------
    cases
        The networks.
    multiples
        n / d, rounded to whole n.
    replicates
        Designs for each point.
    noise
        σ, at outputs of variance 1.
    seed
        Master seed.
    searches, starts, searched
        Of the first ``searches`` designs at n ≤ ``searched`` · d the best of so many random starts
        as well: what least squares proper gives, as far as a search can tell.

    Returns
    -------
    DataFrame
        ``in_sample`` and ``out_of_sample`` with 95 % intervals; ``linear``: n / (n − d/T − 1), the
        exact expectation of the latter for a linear class whose T outputs have d/T dimensions each;
        ``log_rmse`` of in-sample errors over σ with its standard error. Fits start at the truth;
        ``searched`` is the mean in the sample, with its interval, where the lowest of the minima
        found counts, ``next_to_truth`` that of the truth's minimum on the same designs, and
        ``lower`` the share of them where a random start ends below it.
    """
    rows = []
    for case in cases:
        network = with_truth(case, seed=seed)
        weight = true_weight(network, case)
        d = int(intrinsic_dimension(case.network, case.input_shape))
        for multiple in multiples:
            n = round(multiple * d)
            key = case.family, case.name, case.ratio, n
            draws = random_designs(
                weight,
                samples=n,
                noise=noise,
                draws=replicates,
                modes=case.input_shape,
                generator=torch_stream(seed, "onset", *key),
            )
            fits = fit(draws, network, starts=0)
            inside, outside = _risks(fits.weight, weight, draws, n / noise**2 / d)
            row = {"name": f"{case.family}: {case.name}", "dimension": d, "n": n, "n/d": n / d}
            row |= mean_interval("in_sample", inside) | mean_interval("out_of_sample", outside)
            if searches and multiple <= searched:
                near, some = fits.weight[:searches], draws[:searches]
                far = fit(some, network, starts=starts, seed=seed)
                lower = far.loss < fits.loss[:searches] * (1 - SAME_LOSS)
                best = torch.where(lower[:, None, None, None], far.weight, near)
                risks = _risks(best, weight, some, n / noise**2 / d)[0]
                row |= mean_interval("searched", risks) | {"lower": float(lower.double().mean())}
                row["next_to_truth"] = float(inside[:searches].mean())
            free = n - d / weight.shape[2] - 1  # an output has its share of the dimensions
            row["linear"] = n / free if free > 0 else math.nan
            row["log_rmse"] = float((inside.mean() * d / n).log() / 2)
            row["log_rmse_error"] = float(inside.std() / inside.mean() / 2 / replicates**0.5)
            rows.append(row | {"converged": float(fits.converged.double().mean())})
    return pd.DataFrame(rows)


def _risks(fitted: Tensor, weight: Tensor, draws: Draws, scale: float) -> tuple[Tensor, Tensor]:
    """Square errors (m,) in the sample and out of it, times a scale."""
    error = (fitted - weight)[:, :, 0]
    inside = (error * (draws.gram @ error)).sum((1, 2)) * scale
    return inside, error.square().sum((1, 2)) * scale


def rates(frame: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Slope of log RMSE on log(n / d) for each network, by weighted least squares.

    Parameters
    ----------
    frame
        From :func:`onset`; keep the rows where the law holds.
    level
        Of the interval, from the standard errors of the points.

    Returns
    -------
    DataFrame
        ``slope`` with its interval, and ``at_d``: log RMSE / σ extrapolated to n = d; zero for all
        networks if their curves collapse.
    """
    rows = []
    z = float(stats.norm.ppf((1 + level) / 2))
    for name, part in frame.groupby("name", sort=False):
        x, y = np.log(part["n/d"].to_numpy()), part["log_rmse"].to_numpy()
        scaled = 1 / part["log_rmse_error"].to_numpy()
        design = np.stack([np.ones_like(x), x], 1) * scaled[:, None]
        solution = np.linalg.lstsq(design, y * scaled)[0]
        error = np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
        rows.append(
            {
                "name": name,
                "slope": solution[1],
                "slope_low": solution[1] - z * error[1],
                "slope_high": solution[1] + z * error[1],
                "at_d": solution[0],
                "at_d_error": error[0],
            }
        )
    return pd.DataFrame(rows)
