"""Least squares on data that are no independent samples: AR(1) covariates and noise."""

import math

import pandas as pd
import torch
from scipy.signal import lfilter
from torch import Tensor

from krratio.experiments.draws import Draws
from krratio.experiments.estimators import fit
from krratio.experiments.intervals import mean_interval
from krratio.experiments.law import tangent_part
from krratio.experiments.law_cases import LawCase, true_weight, with_truth
from krratio.experiments.network_fit import network_chart
from krratio.experiments.seeds import stream
from krratio.theory import bounds
from krratio.theory.dimension import intrinsic_dimension

__all__ = ["dependence"]

_BLOCKS = 10


def _ar1(rho: float, rows: int, columns: int, seed: int, *key: object) -> Tensor:
    """Independent stationary AR(1) series of variance one in the columns, (rows, columns)."""
    drawn = stream(seed, "AR(1)", *key, rho).standard_normal((rows, columns))
    drawn[1:] *= math.sqrt(1 - rho**2)  # the first value has the stationary variance already
    return torch.from_numpy(lfilter([1.0], [1.0, -rho], drawn, axis=0))


def dependence(
    case: LawCase,
    *,
    coefficients: list[tuple[float, float]],
    samples: int,
    replicates: int,
    noise: float,
    seed: int,
) -> pd.DataFrame:
    """Mean of n · err² / (σ² d) with AR(1) covariates and AR(1) noise, independent of another.

    Parameters
    ----------
    case
        A network with one output.
    coefficients
        Pairs (ρ of the covariates, ρ of the noise).
    samples, replicates, noise, seed
        n, m, σ and the master seed. The design is new in each of ten blocks of replicates, since
        the factor is an average over designs too; m is a multiple of ten.

    Raises
    ------
    ValueError
        The replicates are no multiple of ten, or the network has several outputs.

    Returns
    -------
    DataFrame
        ``measured`` with its 95 % interval over the blocks, ``linear``: the same for the projection
        on the tangent space, and ``predicted``: :func:`krratio.bounds.law_factor`.
    """
    if replicates < _BLOCKS or replicates % _BLOCKS:
        raise ValueError(f"replicates={replicates}: a multiple of {_BLOCKS} is needed.")
    network = with_truth(case, seed=seed)
    weight = true_weight(network, case)
    if weight.shape[2] != 1:
        raise ValueError(f"{case.name} has {weight.shape[2]} outputs; one is needed.")
    d, D = int(intrinsic_dimension(case.network, case.input_shape)), len(weight)
    rows = []
    for covariates, errors in coefficients:
        means, linear = [], []
        for block in range(_BLOCKS):
            images = _ar1(covariates, samples, D, seed, "images", block)
            drawn = noise * _ar1(errors, samples, replicates // _BLOCKS, seed, "noise", block)
            outputs = images @ weight[:, 0] + drawn  # (n, replicates): one output each
            draws = Draws.from_data(images, outputs.mT[..., None], modes=case.input_shape)
            gram, noises = draws.gram, (images.mT @ drawn / samples).mT[..., None]
            error = (fit(draws, network, starts=0).weight - weight)[:, :, 0]
            risk = (error * (gram @ error)).sum((1, 2))
            chart, theta = network_chart(draws, network)
            assert theta is not None
            part = tangent_part(gram, chart.jacobian(theta[None])[0], noises, d)
            means.append(float(risk.mean()) * samples / noise**2 / d)
            linear.append(float(part.mean()) * samples / noise**2 / d)
        rows.append(
            {
                "covariates": covariates,
                "noise": errors,
                **mean_interval("measured", torch.tensor(means), student=True),
                "linear": sum(linear) / _BLOCKS,
                "predicted": float(bounds.law_factor(covariates=covariates, noise=errors)),
            }
        )
    return pd.DataFrame(rows)
