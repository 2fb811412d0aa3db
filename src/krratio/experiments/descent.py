"""Trust-region Newton on the objective, from many starts at once."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from krratio.experiments.charts import Chart
from krratio.experiments.trust_region import solve_ball

__all__ = ["CURVATURE", "Ends", "descend"]

CURVATURE = 1e-8
"""An eigenvalue below minus this fraction of the largest is a way down, not rounding."""

_ROUNDING = 1e-13  # changes of the objective below this fraction of its value at 0 are rounding
_STALLED = 4  # iterations at rounding level without a smaller gradient
_RADII = (0.5, 2.0)  # tried each time, as multiples of the length that last worked best
_NEAR = 1e-8  # of the objective at 0: with less to gain, the gradient norm is measured


@dataclass(eq=False)
class Ends:
    """Where S starts ended; every tensor has the leading axis S.

    Attributes
    ----------
    theta : Tensor
        (S, N) parameters in the chart.
    weight : Tensor
        (S, L, P, T).
    value, gradient_norm, lowest : Tensor
        (S,) objective, relative tangent gradient, smallest over largest Hessian eigenvalue.
    iterations : Tensor
        (S,) models built.
    """

    theta: Tensor
    weight: Tensor
    value: Tensor
    gradient_norm: Tensor
    lowest: Tensor
    iterations: Tensor

    @classmethod
    def concatenate(cls, parts: Sequence["Ends"]) -> "Ends":
        """All starts of all parts, in their order."""
        names = [field.name for field in fields(cls)]
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


class _State:
    """The models at the current points, kept where a step was refused."""

    def __init__(self, chart: Chart, theta: Tensor, rows: Tensor) -> None:
        self.chart, self.rows, self.totals = chart, rows, chart.totals(rows)
        starts = len(theta)
        nan = torch.full((starts,), torch.nan, dtype=torch.float64)
        count = torch.zeros(starts, dtype=torch.int64)
        empty = theta.new_zeros(starts, 0)  # the first rebuild knows its shape
        self.ends = Ends(theta.clone(), empty, nan.clone(), nan + torch.inf, nan.clone(), count)
        self.radius = torch.ones(starts, dtype=torch.float64)
        self.patience = torch.full((starts,), _STALLED)
        self.models: tuple[Tensor, ...] | None = None

    def rebuild(self, which: Tensor) -> None:
        """Differentiate at the points ``which`` (indices)."""
        ends, rows = self.ends, self.rows[which]
        local = self.chart.expand(ends.theta[which], rows)
        eigenvalues, vectors = torch.linalg.eigh(local.hessian)
        found = (local.gradient, eigenvalues, vectors, local.lift, local.weight)
        if self.models is None:
            self.models = tuple(part.clone() for part in found)
            ends.weight = self.models[-1]
        for kept, new in zip(self.models, found, strict=True):
            kept[which] = new
        ends.value[which], ends.lowest[which] = local.value, _relative_lowest(eigenvalues)
        ends.iterations[which] += 1
        gain = _gain(local.gradient, eigenvalues, vectors)
        near = (gain <= _NEAR * self.totals[which]).nonzero()[:, 0]
        norm = torch.full((len(which),), torch.inf, dtype=torch.float64)
        if len(near):
            norm[near] = local.norm(near)
        smaller = norm < 0.5 * ends.gradient_norm[which]
        self.patience[which] = torch.where(smaller, _STALLED, self.patience[which])
        ends.gradient_norm[which] = norm

    def advance(self, which: Tensor) -> Tensor:
        """Try one step from the points ``which``; return the indices that moved."""
        ends = self.ends
        theta, change, promised, radius = self._trials(which)
        rounding = _ROUNDING * self.totals[which]
        tiny = promised <= 10 * rounding
        accepted = torch.where(tiny, change >= -10 * rounding, change > 1e-4 * promised)
        self.radius[which] = torch.where(accepted, radius, radius / 8)
        self.patience[which] -= tiny.long()
        ends.theta[which[accepted]] = theta[accepted]
        return which[accepted]

    def _trials(self, which: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of one step per radius, the lowest: its θ, change, promised change and radius."""
        assert self.models is not None
        twice = which.repeat(len(_RADII))
        gradient, eigenvalues, vectors, lift = (part[twice] for part in self.models[:-1])
        factors = torch.tensor(_RADII, dtype=torch.float64).repeat_interleave(len(which))
        radius = factors * self.radius[twice]
        step, promised = solve_ball(gradient, eigenvalues, vectors, radius)
        theta = self.chart.move(self.ends.theta[twice], lift, step)
        change = self.ends.value[twice] - self.chart.value(theta, self.rows[twice])
        best = change.reshape(len(_RADII), -1).argmax(0) * len(which) + torch.arange(len(which))
        return theta[best], change[best], promised[best], radius[best]


def descend(
    chart: Chart,
    theta: Tensor,
    rows: Tensor,
    *,
    max_iterations: int,
    tolerance: float,
) -> Ends:
    """Minimize from every row of ``theta`` until the gradient and curvature allow no more."""
    state = _State(chart, theta, rows)
    moved = torch.arange(len(theta))
    for _ in range(max_iterations):
        if len(moved):
            state.rebuild(moved)
        ends = state.ends
        at_minimum = (ends.gradient_norm <= tolerance) & (ends.lowest >= -CURVATURE)
        active = (~at_minimum & (state.patience > 0)).nonzero()[:, 0]
        if not len(active):
            return ends
        moved = state.advance(active)
    if len(moved):
        state.rebuild(moved)
    return state.ends


def _gain(gradient: Tensor, eigenvalues: Tensor, vectors: Tensor) -> Tensor:
    """What a Newton step would gain (S,), curvatures taken positive."""
    if not eigenvalues.shape[1]:
        return eigenvalues.new_zeros(len(eigenvalues))
    rotated = (vectors.mT @ gradient[..., None])[..., 0]
    sizes = eigenvalues.abs()
    floor = (1e-12 * sizes.amax(1, keepdim=True)).clamp_min(1e-300)
    return (rotated.square() / torch.maximum(sizes, floor)).sum(1) / 2


def _relative_lowest(eigenvalues: Tensor) -> Tensor:
    if not eigenvalues.shape[1]:
        return eigenvalues.new_zeros(len(eigenvalues))
    return eigenvalues[:, 0] / eigenvalues.abs().amax(1).clamp_min(1e-300)
