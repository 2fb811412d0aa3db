"""Many descents for every draw, the best of them, and how many agree on it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from krratio.experiments.charts import Chart, FreeChart
from krratio.experiments.descent import Ends, descend, is_minimum
from krratio.experiments.kernels import KernelFormat
from krratio.experiments.reduced import Problem
from krratio.experiments.seeds import stream
from krratio.experiments.structured import StructuredChart

__all__ = ["SAME_LOSS", "Minima", "Search", "best_of"]

SAME_LOSS = 1e-6
"""Two local minima whose losses differ by less than this fraction count as the same."""

_MEMORY = 64 * 2**20  # bytes of work space for the points that are differentiated together
_POOL = 256 * 2**20  # bytes of models of the starts that descend together
_TIE = 1e-11  # a later descent must win by this fraction of the loss at 0 to replace an earlier one


@dataclass(eq=False)
class Minima:
    """The lowest minimum of each draw; tensors have the leading axis m.

    ``parameters`` (m, N) are the format's, ``weight`` is (m, L, P, T), ``origin`` says which
    descent found it.
    """

    value: Tensor
    parameters: Tensor
    weight: Tensor
    iterations: Tensor
    gradient_norm: Tensor
    lowest: Tensor
    origin: list[str]


class Search:
    """Descents of one format on the draws of one problem.

    Attributes
    ----------
    values : list of Tensor
        The objective (m,) at the end of every descent so far.
    best : Minima
        The lowest so far, the earlier one of a tie.
    """

    best: Minima

    def __init__(
        self,
        kernels: KernelFormat,
        problem: Problem,
        seed: int,
        max_iterations: int,
        tolerance: float,
    ) -> None:
        self.kernels, self.problem, self.seed = kernels, problem, seed
        self.max_iterations, self.tolerance = max_iterations, tolerance
        free = kernels.name == "matrix"  # no parameters to pull back through
        self.chart: Chart = (FreeChart if free else StructuredChart)(kernels, problem)
        self.values: list[Tensor] = []

    @property
    def draws(self) -> int:
        """How many, m."""
        return len(self.problem.half_total)

    def stream(self, *key: object) -> np.random.Generator:
        """The random stream keyed by (seed, format, ranks, key), whatever else is drawn."""
        return stream(self.seed, "fit", self.kernels.name, *self.kernels.ranks, *key)

    def run(self, origin: str, starts: Sequence[Sequence[Tensor]]) -> None:
        """Descend for every draw from the same blocks, one descent for each of ``starts``."""
        blocks = torch.stack([self.kernels.pack(start) for start in starts])
        self.run_each(origin, blocks[:, None].expand(-1, self.draws, -1))

    def run_each(self, origin: str, blocks: Tensor, number: int = 0) -> None:
        """Descend from blocks (starts, m, N), as many at once as memory allows.

        The minima are called ``origin`` and a number, counted from ``number``.
        """
        starts = len(blocks)
        theta = self.chart.enter(blocks.reshape(starts * self.draws, -1))
        rows = torch.arange(self.draws).repeat(starts)
        pool = max(1, _POOL // (24 * blocks.shape[-1] ** 2))
        parts = [
            descend(
                self.chart,
                some,
                which,
                max_iterations=self.max_iterations,
                tolerance=self.tolerance,
                together=self._together(),
            )
            for some, which in zip(theta.split(pool), rows.split(pool), strict=True)
        ]
        ends = Ends.concatenate(parts)
        for start in range(starts):
            self._record(f"{origin} {number + start}", ends, start * self.draws)

    def reaches_best(self, value: Tensor) -> Tensor:
        """Whether losses (m,) count as the best ones."""
        return _reaches(value, self.best.value, self.problem.half_total)

    def converged(self) -> Tensor:
        """Whether the best ones (m,) are minima to the tolerance, to second order."""
        return is_minimum(self.best.gradient_norm, self.best.lowest, self.tolerance)

    def _record(self, origin: str, ends: Ends, first: int) -> None:
        rows = slice(first, first + self.draws)
        found = Minima(
            ends.value[rows].clone(),
            self.chart.leave(ends.theta[rows]),
            ends.weight[rows].clone(),
            ends.iterations[rows].clone(),
            ends.gradient_norm[rows].clone(),
            ends.lowest[rows].clone(),
            [origin] * self.draws,
        )
        self.values.append(found.value.clone())
        if len(self.values) == 1:
            self.best = found
            return
        better = _wins(found.value, self.best.value, self.problem.half_total)
        for name in ("value", "parameters", "weight", "iterations", "gradient_norm", "lowest"):
            getattr(self.best, name)[better] = getattr(found, name)[better]
        for draw in better.nonzero()[:, 0].tolist():
            self.best.origin[draw] = origin

    def _together(self) -> int:
        L, P, T = self.problem.shape
        R = self.kernels.rank
        if self.kernels.name == "matrix":
            coupling, grams = 3 * R * P * T * (L - R) * R, 3 * L * R * P**2
            outer = P**2 * R**2 + 2 * L**2 * R**2
        else:
            coupling, grams = 3 * L * R * T * R * P, 2 * L * R * P**2
            outer = L**2 * R**2 + 2 * L * R * sum(map(math.prod, self.kernels.shapes))
        return max(1, _MEMORY // (8 * (coupling + grams + outer)))


def best_of(
    values: Tensor, totals: Tensor, names: Sequence[str]
) -> tuple[Tensor, tuple[str, ...], Tensor]:
    """Of losses (starts, m): the best start of each draw, its name, and who reaches its loss."""
    chosen = torch.zeros(values.shape[1], dtype=torch.int64)
    best = values[0].clone()
    for start in range(1, len(values)):
        better = _wins(values[start], best, totals)
        chosen[better], best[better] = start, values[start][better]
    at_best = _reaches(values, best, totals)
    return chosen, tuple(names[i] for i in chosen.tolist()), at_best


def _wins(value: Tensor, best: Tensor, totals: Tensor) -> Tensor:
    wins: Tensor = value < best - _TIE * totals
    return wins


def _reaches(value: Tensor, best: Tensor, totals: Tensor) -> Tensor:
    reaches: Tensor = value <= best + SAME_LOSS * best + 1e-12 * totals
    return reaches
