"""The law of least squares, n · err² / σ² → d, measured on networks with noise drawn many times."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

from krratio.experiments.draws import Draws
from krratio.experiments.estimators import fit
from krratio.experiments.intervals import mean_interval
from krratio.experiments.law_cases import LawCase, expanded, true_weight, with_truth
from krratio.experiments.network_chart import NetworkChart
from krratio.experiments.network_fit import network_chart
from krratio.experiments.seeds import torch_stream
from krratio.theory.dimension import intrinsic_dimension

__all__ = ["Experiment", "equivalence", "experiment", "measure_law", "same_data", "tangent_part"]


@dataclass(frozen=True, eq=False)
class Experiment:
    """One case with its truth, one fixed Gaussian design, and many draws of the noise.

    Attributes
    ----------
    network : nn.Sequential
        With the true weights.
    weight : Tensor
        The truth W* (D, 1, T).
    draws : Draws
        On the fixed design.
    chart : NetworkChart
        Of the network's class on them.
    tangent : Tensor
        (m,) n · ‖P ε‖² / σ² per draw, P the projection on the tangent space at W*: chi-squared with
        d degrees of freedom, whatever the class, so that it can serve as a control variate.
    """

    network: nn.Sequential
    weight: Tensor
    draws: Draws
    chart: NetworkChart
    tangent: Tensor
    samples: int
    noise: float
    dimension: int

    def risks(self, weights: Tensor) -> Tensor:
        """N · err² / σ² (m,) of estimates (m, D, 1, T): in-sample, summed over outputs."""
        error = (weights - self.weight)[:, :, 0]
        squares = torch.einsum("mdt,de,met->m", error, self.draws.gram, error)
        return squares * self.samples / self.noise**2


def experiment(
    case: LawCase, *, dimension: int, samples: int, noise: float, replicates: int, seed: int
) -> Experiment:
    """Draw truth, design and noise of one case.

    Parameters
    ----------
    case
        The network.
    dimension
        Its :func:`krratio.intrinsic_dimension`.
    samples, noise
        n and σ; the outputs have variance 1 per output without noise.
    replicates
        m, draws of the noise.
    seed
        Master seed. Truth, design and noise depend on it and on the case alone.
    """
    network = with_truth(case, seed=seed)
    key = case.family, case.name, case.ratio
    D = math.prod(case.input_shape)
    images = torch.randn(
        samples, D, generator=torch_stream(seed, "design", *key), dtype=torch.float64
    )
    gram = images.mT @ images / samples
    weight = true_weight(network, case)
    draws = Draws.gaussian(
        gram,
        weight,
        samples=samples,
        noise=noise,
        draws=replicates,
        modes=case.input_shape,
        generator=torch_stream(seed, "noise", *key),
    )
    chart, theta = network_chart(draws, network)
    assert theta is not None
    noises = draws.cross - gram @ weight[:, 0]
    part = tangent_part(gram, chart.jacobian(theta[None])[0], noises, dimension)
    tangent = part * samples / noise**2
    return Experiment(network, weight, draws, chart, tangent, samples, noise, dimension)


def tangent_part(gram: Tensor, jacobian: Tensor, noises: Tensor, dimension: int) -> Tensor:
    """‖P ε‖² / n (m,), P the projection on the tangent space in the design.

    Parameters
    ----------
    gram : Tensor
        (D, D).
    jacobian : Tensor
        (T·D, N) ∂W/∂θ at the truth.
    noises : Tensor
        (m, D, T) Zᵀε / n.
    dimension : int
        Rank of the Jacobian.
    """
    D, T = noises.shape[1:]
    tangents = torch.linalg.svd(jacobian, full_matrices=False)[0][:, :dimension]
    tangents = tangents.reshape(T, D, dimension)
    seen = torch.einsum("tdi,de,tej->ij", tangents, gram, tangents)
    right = torch.einsum("tdi,mdt->im", tangents, noises)
    part: Tensor = (right * torch.linalg.solve(seen, right)).sum(0)
    return part


def measure_law(
    cases: Sequence[LawCase],
    *,
    work: int,
    noise: float,
    samples_per_dimension: int,
    seed: int,
) -> pd.DataFrame:
    """Mean of n · err² / (σ² d) for every case, plain and with the control variate.

    Parameters
    ----------
    cases
        The networks.
    work
        Replicates times d, at least: the plain mean then has a relative standard error of
        sqrt(2 / work).
    noise
        σ.
    samples_per_dimension
        n / d.
    seed
        Master seed.

    Returns
    -------
    DataFrame
        One row a case: parameters, dimension, replicates, ``ratio`` and ``controlled`` with their
        95 % intervals, the share of fits that converged, and ``singular``, the share that ended at
        a singular member of the class, on a fold. Each fit starts at the truth: the law
        is a statement on the minimum near it.
    """
    rows = []
    for case in cases:
        d = int(intrinsic_dimension(case.network, case.input_shape))
        found = experiment(
            case,
            dimension=d,
            samples=samples_per_dimension * d,
            noise=noise,
            replicates=math.ceil(work / d),
            seed=seed,
        )
        fits = fit(found.draws, found.network, starts=0)
        risks = found.risks(fits.weight) / d
        rows.append(
            {
                "family": case.family,
                "name": case.name,
                "K/R": case.ratio,
                "parameters": sum(p.numel() for p in case.network.parameters()),
                "dimension": d,
                "replicates": len(risks),
                **mean_interval("ratio", risks),
                **mean_interval("controlled", risks - (found.tangent / d - 1)),
                "converged": float(fits.converged.double().mean()),
                "singular": 1 - float(found.chart.regular(fits.parameters).double().mean()),
            }
        )
    return pd.DataFrame(rows)


def same_data(
    cases: Sequence[LawCase],
    *,
    ratios: Sequence[int],
    replicates: int,
    noise: float,
    samples_per_dimension: int,
    seed: int,
) -> pd.DataFrame:
    """Fit networks with K = R, 2R, … to the same data: largest difference of the fitted functions.

    Parameters
    ----------
    cases
        Networks with an expansion; their own K/R is 1.
    ratios
        K/R to compare with K = R.
    replicates, noise, samples_per_dimension, seed
        As for :func:`measure_law`.

    Returns
    -------
    DataFrame
        ``difference``: max over draws of ‖W_K − W_R‖ over the error ‖W_R − W*‖ that the noise
        leaves; ``parameters`` at that K, and the share of fits that converged.
    """
    rows = []
    for case in cases:
        d = int(intrinsic_dimension(case.network, case.input_shape))
        n = samples_per_dimension * d
        found = experiment(
            case, dimension=d, samples=n, noise=noise, replicates=replicates, seed=seed
        )
        base = fit(found.draws, found.network, starts=0)
        error = (base.weight - found.weight).flatten(1).norm(dim=1)
        bottleneck = _bottleneck(found.network)
        for ratio in ratios:
            wide = expanded(found.network, ratio * bottleneck, seed=seed)
            fits = fit(found.draws, wide, starts=0)
            gap = (fits.weight - base.weight).flatten(1).norm(dim=1)
            rows.append(
                {
                    "name": f"{case.family}: {case.name}",
                    "K/R": ratio,
                    "parameters": sum(p.numel() for p in wide.parameters()),
                    "difference": float((gap / error).max()),
                    "converged": float(fits.converged.double().mean()),
                }
            )
    return pd.DataFrame(rows)


def _bottleneck(network: nn.Sequential) -> int:
    """R, what enters the last 1x1 convolution."""
    convs = [m for m in network if isinstance(m, nn.Conv1d | nn.Conv2d)]
    return [m.in_channels for m in convs if set(m.kernel_size) == {1}][-1]


def equivalence(frame: pd.DataFrame, *, margin: float, level: float = 0.95) -> pd.DataFrame:
    """Two one-sided tests that the law at K/R equals the law at K = R within a margin.

    Parameters
    ----------
    frame
        From :func:`measure_law`; rows of one family and name that differ in K/R are compared,
        with independent noise. One of each name has K/R = 1.
    margin
        Largest relative difference that counts as equal.
    level
        1 − the level of each one-sided test.

    Returns
    -------
    DataFrame
        ``difference`` with its interval (at 2·level − 1) and ``p``, the larger p-value of the two:
        equivalence is established where it is below 1 − level.

    Raises
    ------
    ValueError
        There are rows with K/R > 1 and none with K/R = 1 to compare them with.
    """
    rows = []
    for (family, name), part in frame.groupby(["family", "name"], sort=False):
        base = part[part["K/R"] == 1]
        if base.empty:
            ratios = sorted(part["K/R"])
            raise ValueError(f"{family}: {name} has K/R = {ratios}; a row with K/R = 1 is needed.")
        for _, wide in part[part["K/R"] > 1].iterrows():
            one = base.iloc[0]
            spread = 2 * stats.norm.ppf(0.975)
            errors = [(r["controlled_high"] - r["controlled_low"]) / spread for r in (one, wide)]
            error = float(np.hypot(*errors))
            difference = float(wide["controlled"] - one["controlled"])
            p = stats.norm.sf((margin - abs(difference)) / error)
            half = stats.norm.ppf(level) * error
            rows.append(
                {
                    "name": f"{family}: {name}",
                    "K/R": int(wide["K/R"]),
                    "difference": difference,
                    "low": difference - half,
                    "high": difference + half,
                    "p": float(p),
                }
            )
    return pd.DataFrame(rows)
