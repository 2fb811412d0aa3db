"""Trust-region Newton on the objective, from many starts at once."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from krratio.experiments.charts import Chart, Local
from krratio.experiments.trust_region import solve_ball

__all__ = ["Ends", "descend", "is_minimum"]

_CURVATURE = 1e-8  # an eigenvalue below minus this fraction of the largest is a way down
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
    """The models at the current points, kept where a step was refused.

    ``matrix`` holds Hessians, and their eigenvectors instead where ``known``: a Newton step of a
    positive definite Hessian that stays inside the ball needs no eigenvalues.
    """

    def __init__(self, chart: Chart, theta: Tensor, rows: Tensor, together: int) -> None:
        self.chart, self.rows, self.totals = chart, rows, chart.totals(rows)
        self.together, starts = together, len(theta)
        nan = torch.full((starts,), torch.nan, dtype=torch.float64)
        count = torch.zeros(starts, dtype=torch.int64)
        empty = theta.new_zeros(starts, 0)  # the first rebuild knows its shape
        self.ends = Ends(theta.clone(), empty, nan.clone(), nan + torch.inf, nan.clone(), count)
        self.radius = torch.ones(starts, dtype=torch.float64)
        self.patience = torch.full((starts,), _STALLED)
        self.known = torch.zeros(starts, dtype=torch.bool)
        self.allocated = False
        self.gradient = self.newton = self.eigenvalues = self.matrix = self.lift = empty

    def rebuild(self, moved: Tensor) -> None:
        """Differentiate at the points ``moved`` (indices), as many at once as fit the cache."""
        for which in moved.split(self.together):
            self._take(which, self.chart.expand(self.ends.theta[which], self.rows[which]))

    def _take(self, which: Tensor, local: Local) -> None:
        """Make ``local`` the models of ``which``."""
        if not self.allocated:
            self._allocate(local)
        self._keep(which, local)
        gain = self._gain(which)
        near = (gain <= _NEAR * self.totals[which]).nonzero()[:, 0]
        norm = torch.full((len(which),), torch.inf, dtype=torch.float64)
        if len(near):
            norm[near] = local.norm(near)
        smaller = norm < 0.5 * self.ends.gradient_norm[which]
        self.patience[which] = torch.where(smaller, _STALLED, self.patience[which])
        self.ends.gradient_norm[which] = norm

    def _allocate(self, local: Local) -> None:
        starts, self.allocated = len(self.rows), True
        self.gradient, self.matrix, self.lift, self.ends.weight = (
            part.new_empty(starts, *part.shape[1:])
            for part in (local.gradient, local.hessian, local.lift, local.weight)
        )
        self.newton, self.eigenvalues = self.gradient.clone(), self.gradient.clone()

    def _keep(self, which: Tensor, local: Local) -> None:
        ends = self.ends
        ends.value[which], ends.weight[which] = local.value, local.weight
        ends.iterations[which] += 1
        self.gradient[which], self.matrix[which] = local.gradient, local.hessian
        self.lift[which] = local.lift
        factor, failed = torch.linalg.cholesky_ex(local.hessian)
        definite = failed == 0
        self.known[which], ends.lowest[which] = False, 0.0
        step = -torch.cholesky_solve(local.gradient[definite, :, None], factor[definite])[..., 0]
        self.newton[which[definite]] = step
        self._decompose(which[~definite])

    def _decompose(self, which: Tensor) -> None:
        """Eigenvalues and eigenvectors of the Hessians ``which``, where they are not known."""
        which = which[~self.known[which]]
        if len(which):
            self.eigenvalues[which], self.matrix[which] = torch.linalg.eigh(self.matrix[which])
            self.ends.lowest[which] = _relative_lowest(self.eigenvalues[which])
            self.newton[which] = torch.inf  # not to be taken
            self.known[which] = True

    def _gain(self, which: Tensor) -> Tensor:
        """What a Newton step would gain (S,), curvatures taken positive."""
        known = self.known[which]
        gain = -(self.gradient[which] * self.newton[which]).sum(1) / 2
        some = which[known]
        gain[known] = _gain(self.gradient[some], self.eigenvalues[some], self.matrix[some])
        return gain

    def advance(self, which: Tensor) -> Tensor:
        """Try one step from the points ``which``; return those that moved and have no model yet."""
        inside = self.newton[which].norm(dim=1) <= _RADII[-1] * self.radius[which]
        for some in which[inside].split(self.together):
            self._newton(some)
        return torch.cat([self._trials(some) for some in which[~inside].split(self.together)])

    def _newton(self, which: Tensor) -> None:
        """Take Newton steps; most are accepted, so that their models are built at once."""
        if not len(which):
            return
        step = self.newton[which]
        theta = self.chart.move(self.ends.theta[which], self.lift[which], step)
        local = self.chart.expand(theta, self.rows[which])
        change = self.ends.value[which] - local.value
        promised = -(self.gradient[which] * step).sum(1) / 2
        radius = torch.maximum(step.norm(dim=1), _RADII[0] * self.radius[which])
        accepted = self._judge(which, change, promised, radius)
        self.ends.theta[which[accepted]] = theta[accepted]
        self._take(which[accepted], local.select(accepted))

    def _trials(self, which: Tensor) -> Tensor:
        """Of one step per radius take the lowest; return the indices that moved."""
        if not len(which):
            return which
        self._decompose(which)
        twice = which.repeat(len(_RADII))
        factors = torch.tensor(_RADII, dtype=torch.float64).repeat_interleave(len(which))
        radius = factors * self.radius[twice]
        step, promised = solve_ball(
            self.gradient[twice], self.eigenvalues[twice], self.matrix[twice], radius
        )
        theta = self.chart.move(self.ends.theta[twice], self.lift[twice], step)
        change = self.ends.value[twice] - self.chart.value(theta, self.rows[twice])
        best = change.reshape(len(_RADII), -1).argmax(0) * len(which) + torch.arange(len(which))
        accepted = self._judge(which, change[best], promised[best], radius[best])
        self.ends.theta[which[accepted]] = theta[best[accepted]]
        return which[accepted]

    def _judge(self, which: Tensor, change: Tensor, promised: Tensor, radius: Tensor) -> Tensor:
        """Whether steps are accepted; their ``radius`` is the next one then, and an eighth else."""
        rounding = _ROUNDING * self.totals[which]
        tiny = promised <= 10 * rounding
        accepted = torch.where(tiny, change >= -10 * rounding, change > 1e-4 * promised)
        self.radius[which] = torch.where(accepted, radius, radius / 8)
        self.patience[which] -= tiny.long()
        return accepted

    def finish(self) -> Ends:
        """The ends with the lowest eigenvalues that the descents did not need."""
        for which in (~self.known).nonzero()[:, 0].split(self.together):
            self.ends.lowest[which] = _relative_lowest(torch.linalg.eigvalsh(self.matrix[which]))
        return self.ends


def descend(
    chart: Chart,
    theta: Tensor,
    rows: Tensor,
    *,
    max_iterations: int,
    tolerance: float,
    together: int | None = None,
) -> Ends:
    """Minimize from every row of ``theta`` until the gradient and curvature allow no more.

    Of many rows, ``together`` are differentiated at once, or all.
    """
    state = _State(chart, theta, rows, together or len(theta))
    moved = torch.arange(len(theta))
    for _ in range(max_iterations):
        if len(moved):
            state.rebuild(moved)
        ends = state.ends
        done = is_minimum(ends.gradient_norm, ends.lowest, tolerance)
        active = (~done & (state.patience > 0)).nonzero()[:, 0]
        if not len(active):
            break
        moved = state.advance(active)
    else:
        if len(moved):
            state.rebuild(moved)
    return state.finish()


def is_minimum(gradient_norm: Tensor, lowest: Tensor, tolerance: float) -> Tensor:
    """Whether points are minima to the tolerance and to second order.

    ``lowest`` are the smallest eigenvalues over the largest; NaN where nothing can move.
    """
    saddle: Tensor = lowest < -_CURVATURE
    return (gradient_norm <= tolerance) & ~saddle


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
