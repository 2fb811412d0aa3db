"""Recovery of a network's function from few samples: random truths, random designs, many starts."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from krratio.experiments.descent import descend
from krratio.experiments.draws import Draws
from krratio.experiments.network_chart import NetworkChart
from krratio.experiments.network_fit import network_chart
from krratio.experiments.seeds import torch_stream
from krratio.networks.layers import Shape
from krratio.networks.trace import trace

__all__ = [
    "EXACT",
    "RECOVERED",
    "Attempts",
    "Trials",
    "attempt",
    "channel_bottleneck",
    "draw_trials",
]

EXACT = 1e-12
"""A relative residual ‖XW − y‖ / ‖y‖ up to here counts as zero loss."""

RECOVERED = 1e-4
"""A relative error ‖W − W*‖ / ‖W*‖ up to here counts as recovery."""

_TOGETHER = 600  # points that are differentiated at once
_POLISHED = 1e-5  # ends of smaller residual: the Gram knows residuals to about 1e-8 only
_STEPS = 6  # Gauss-Newton steps, quadratic where the loss can be zero
_GAUGE = 1e-9  # relative singular values below this belong to directions that change nothing


@dataclass(frozen=True, eq=False)
class Trials:
    """m regressions y = ⟨X, W*⟩ + noise, a truth and a design each.

    Attributes
    ----------
    X : Tensor
        (m, n, D) float64.
    y : Tensor
        (m, n, T).
    weight : Tensor
        W* (m, T, D); zero where there is no truth.
    theta : Tensor
        (m, N), the weights of the network that drew W*; empty where none did.
    modes : tuple of int
        (C, d_1, …, d_N).
    """

    X: Tensor
    y: Tensor
    weight: Tensor
    theta: Tensor
    modes: Shape

    def __len__(self) -> int:
        return len(self.X)

    @property
    def samples(self) -> int:
        """The number n of samples of each trial."""
        return self.X.shape[1]

    def draws(self) -> Draws:
        """Their sufficient statistics."""
        return Draws.from_data(self.X, self.y, modes=self.modes)

    def seen(self, weight: Tensor) -> Tensor:
        """Outputs (…, m, n, T) of weights (…, m, T, D)."""
        return self.X @ weight.mT


@dataclass(frozen=True, eq=False)
class Attempts:
    """Where descents ended; the leading axes are (starts, m), NaN where none was needed.

    Attributes
    ----------
    weight, theta : Tensor
        W (starts, m, T, D) and the network's weights (starts, m, N).
    error : Tensor
        ‖W − W*‖ / ‖W*‖.
    residual : Tensor
        ‖XW − y‖ / ‖y‖.
    """

    weight: Tensor
    theta: Tensor
    error: Tensor
    residual: Tensor

    @property
    def recovered(self) -> Tensor:
        """Whether W is W* (starts, m)."""
        return self.error <= RECOVERED

    @property
    def exact(self) -> Tensor:
        """Whether W fits all samples (starts, m)."""
        return self.residual <= EXACT

    def solved(self, starts: int) -> Tensor:
        """Whether one of the first starts recovers W* (m,)."""
        return self.recovered[:starts].any(0)


def channel_bottleneck(R: int, K: int, *, L: int = 8, P: int = 7, T: int = 1) -> nn.Sequential:
    """1×1 (L → R), 1×1 (R → K), FC on P positions: for K ≥ R the L × (P·T) matrices of rank R.

    It takes inputs of shape (L, P); its weights lie on ``device="meta"``.
    """
    with torch.device("meta"):
        squeeze, expand = nn.Conv1d(L, R, 1, bias=False), nn.Conv1d(R, K, 1, bias=False)
        return nn.Sequential(squeeze, expand, nn.Flatten(), nn.Linear(K * P, T, bias=False))


def draw_trials(
    network: nn.Module, modes: Shape, *, samples: int, trials: int, noise: float = 0.0, seed: int
) -> Trials:
    """Draw truths from a class, outputs of variance 1 on average, and Gaussian designs.

    Parameters
    ----------
    network
        A chain without constants; its own weights are not used.
    modes
        (C, d_1, …, d_N).
    samples, trials
        n and m.
    noise
        σ.
    seed
        Master seed. Two networks of different width share the designs, not the truths.
    """
    chart, D = _chart(network, modes), math.prod(modes)
    theta = chart.random(trials, torch_stream(seed, "recovery truth", samples))
    norm = chart.weight(theta).flatten(1).norm(dim=1, keepdim=True)
    theta[:, chart.uses[0].place] *= math.sqrt(chart.outputs) / norm  # W is linear in one layer
    weight = chart.weight(theta)
    draw = torch_stream(seed, "recovery design", samples)
    X = torch.randn(trials, samples, D, generator=draw, dtype=torch.float64)
    errors = torch.randn(trials, samples, chart.outputs, generator=draw, dtype=torch.float64)
    y = X @ weight.mT + noise * errors
    return Trials(X, y, weight, theta, tuple(modes))


def attempt(
    trials: Trials,
    network: nn.Module,
    *,
    starts: int,
    seed: int,
    until: Literal["recovered", "exact"] | None = None,
    iterations: int = 200,
) -> Attempts:
    """Fit the class of a network to every trial, from random weights of its own each time.

    Parameters
    ----------
    trials
        All are fitted together.
    network
        The class; weights are not used.
    starts
        Random starts for each trial; 0 begins at the truth, which the network must have drawn.
    seed
        Master seed; the weights of a start do not depend on how many others there are.
    until
        Trials that got there need no further start.
    iterations
        Newton models per descent.

    Raises
    ------
    ValueError
        There is no truth of this network to start at.
    """
    chart = network_chart(trials.draws(), network)[0]
    if starts == 0 and trials.theta.shape[1] != chart.size:
        raise ValueError(
            f"starts=0 begins at the truth, which has {trials.theta.shape[1]} weights, and the "
            f"network has {chart.size}: give the network that drew it, or starts ≥ 1."
        )
    m, number = len(trials), max(1, starts)
    outputs, features = trials.weight.shape[1:]
    weight = torch.full((number, m, outputs, features), torch.nan, dtype=torch.float64)
    theta = torch.full((number, m, chart.size), torch.nan, dtype=torch.float64)
    error, residual = (torch.full((number, m), torch.nan, dtype=torch.float64) for _ in range(2))
    found, left = Attempts(weight, theta, error, residual), torch.arange(m)
    for start in range(number):
        key = "recovery start", trials.samples, start
        begin = chart.random(m, torch_stream(seed, *key)) if starts else trials.theta
        _descend(found, start, chart, trials, begin[left], left, iterations)
        if until is not None:
            left = left[~getattr(found, until)[start, left]]
        if not len(left):
            break
    return found


def _descend(
    found: Attempts,
    start: int,
    chart: NetworkChart,
    trials: Trials,
    begin: Tensor,
    rows: Tensor,
    iterations: int,
) -> None:
    """Enter where descents from ``begin`` end, for the trials ``rows``."""
    ends = descend(
        chart, begin, rows, max_iterations=iterations, tolerance=1e-10, together=_TOGETHER
    )
    theta = _polish(chart, trials, ends.theta, rows)
    weight, truth = chart.weight(theta), trials.weight[rows]
    found.weight[start, rows], found.theta[start, rows] = weight, theta
    found.error[start, rows] = _size(weight - truth) / _size(truth)
    missed = trials.X[rows] @ weight.mT - trials.y[rows]
    found.residual[start, rows] = _size(missed) / _size(trials.y[rows])


def _polish(chart: NetworkChart, trials: Trials, theta: Tensor, rows: Tensor) -> Tensor:
    """Gauss-Newton steps on the residual itself where it is small, as long as it falls.

    They tell a loss of zero from a minimum of small loss, which the Gram cannot: it squares.
    """
    X, y = trials.X[rows], trials.y[rows]

    def missed(at: Tensor, which: Tensor) -> Tensor:
        found: Tensor = X[which] @ chart.weight(at).mT - y[which]
        return found

    size, theta = _size(missed(theta, torch.arange(len(rows)))), theta.clone()
    left = (size <= _POLISHED * _size(y)).nonzero()[:, 0]
    for _ in range(_STEPS):
        if not len(left):
            break
        jacobian = chart.jacobian(theta[left]).unflatten(1, (chart.outputs, chart.features))
        sampled = torch.einsum("mnd,mtdq->mntq", X[left], jacobian).flatten(1, 2)
        step = (
            torch.linalg.pinv(sampled, rtol=_GAUGE)
            @ missed(theta[left], left).flatten(1)[..., None]
        )
        tried = theta[left] - step[..., 0]
        after = _size(missed(tried, left))
        falls = after < size[left]
        left, tried = left[falls], tried[falls]
        theta[left], size[left] = tried, after[falls]
    return theta


def _size(values: Tensor) -> Tensor:
    size: Tensor = values.flatten(1).norm(dim=1)
    return size


def _chart(network: nn.Module, modes: Shape) -> NetworkChart:
    """The class of a network, on statistics that say nothing."""
    D, T = math.prod(modes), math.prod(trace(network, modes).output_shape)
    gram, cross = torch.eye(D, dtype=torch.float64), torch.zeros(1, D, T, dtype=torch.float64)
    total = torch.ones(1, T, dtype=torch.float64)
    return network_chart(Draws(gram, cross, total, tuple(modes), 1), network)[0]
