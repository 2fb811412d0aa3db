"""Least squares over the functions of a network, for many draws."""

import math

import torch
from torch import Tensor, nn

from krratio.errors import KrratioError, ShapeError
from krratio.experiments.descent import Ends, descend, is_minimum
from krratio.experiments.draws import Draws
from krratio.experiments.fits import Fits, diverges
from krratio.experiments.network_chart import NetworkChart
from krratio.experiments.search import best_of
from krratio.experiments.seeds import torch_stream
from krratio.networks.trace import trace
from krratio.theory.own import own_parameters

__all__ = ["fit_network", "network_chart"]

_MEMORY = 64 * 2**20  # bytes of Jacobians and Hessians that descend together
_MATRICES = 2**30
_PERFECT = 1e-12  # of the objective at W = 0
_CURVED = 1e-8  # of the largest curvature: less is none


def network_chart(draws: Draws, model: nn.Module) -> tuple[NetworkChart, Tensor | None]:
    """The class of a network on these draws, and θ of its present weights.

    θ is None where the network lies on ``device="meta"``.

    Raises
    ------
    ShapeError
        The draws are not of the network's images and outputs.
    KrratioError
        A fixed weight or a running statistic has no value (``device="meta"``).
    """
    if draws.positions != 1:
        raise ShapeError(
            f"The statistics have {draws.positions} positions; a network is fitted to statistics "
            "of the images themselves: Statistics.from_batches([(images[..., None], outputs)])."
        )
    graph = trace(model, draws.modes)
    outputs = math.prod(graph.output_shape)
    if outputs != draws.shape[2]:
        raise ShapeError(f"The network has {outputs} outputs, the statistics {draws.shape[2]}.")
    own = own_parameters(model, graph)
    for node, name, weight in graph.weights():
        if weight.is_meta and name != "bias" and not (name == "weight" and id(weight) in own):
            raise KrratioError(f"the {name} of {node.name} lies on device='meta'; it needs a value")
    chart = NetworkChart(draws, graph, own, max_bytes=_MATRICES)
    weights = {id(w): w for _, _, w in graph.weights()}
    meta = any(weights[name].is_meta for name in chart.places)
    return chart, None if meta else chart.present(weights)


def fit_network(
    draws: Draws,
    model: nn.Module,
    *,
    starts: int,
    seed: int,
    max_iterations: int,
    tolerance: float,
) -> Fits:
    """Fit every draw; see :func:`krratio.fit`.

    Raises
    ------
    ValueError
        The network has no free weight, or more dimensions than the samples of a draw see.
    """
    chart, present = network_chart(draws, model)
    if not chart.size:
        raise ValueError("The network has no free weight, so that there is nothing to fit.")
    _check_identified(draws, chart)
    if starts == 0:
        if present is None:
            raise KrratioError("starts=0 begins at the network's weights, which lie on meta")
        theta = present[None]
    else:
        keys = [("fit", "network", start) for start in range(starts)]
        theta = torch.cat([chart.random(1, torch_stream(seed, *key)) for key in keys])
    m, number = len(draws), len(theta)
    rows = torch.arange(m).repeat(number)
    theta = theta.repeat_interleave(m, 0)
    work = 8 * 4 * chart.size * (chart.size + chart.cross[0].numel())
    ends = descend(
        chart,
        theta,
        rows,
        max_iterations=max_iterations,
        tolerance=tolerance,
        together=max(1, _MEMORY // work),
    )
    names = ("present weights",) if starts == 0 else [f"random {i}" for i in range(number)]
    return _fits(draws, chart, ends, list(names), tolerance)


def _check_identified(draws: Draws, chart: NetworkChart) -> None:
    """Refuse designs that do not see the tangent space at a random member: no minimum is unique."""
    theta = chart.random(1, torch_stream(0, "identified"))
    d, eps = chart.width, torch.finfo(torch.float64).eps
    tangents = torch.linalg.svd(chart.jacobian(theta)[0], full_matrices=False)[0][:, :d]
    tangents = tangents.reshape(chart.outputs, chart.features, d)
    grams = draws.gram if draws.gram.ndim == 3 else draws.gram[None]
    seen = sum(tangent.mT @ grams @ tangent for tangent in tangents)
    assert isinstance(seen, Tensor)
    values = torch.linalg.eigvalsh(seen)
    ranks = (values > chart.features * eps * values[:, -1:]).sum(1)
    if int(ranks.min()) < d:
        raise ValueError(
            f"The class has {d} dimensions, of which the samples see {int(ranks.min())}: its "
            f"minimum is not unique. Give at least {d} samples, or inputs that span more."
        )


def _is_fold(chart: NetworkChart, theta: Tensor, rows: Tensor) -> Tensor:
    """Whether singular members (S, N) are minima all the same, on a fold of the class (S,).

    There ∂W/∂θ lacks directions, which the chart takes for gauge. On a fold, which bounds the
    class, the objective curves up along them; it curves down where a channel has died, and not at
    all where several layers have, so that nothing is known.
    """
    curvatures = chart.curvatures(theta, rows)
    level = _CURVED * curvatures[:, -1:]
    upward = (curvatures > level).sum(1) >= chart.width
    return upward & (curvatures[:, 0] >= -level[:, 0])


def _fits(
    draws: Draws, chart: NetworkChart, ends: Ends, names: list[str], tolerance: float
) -> Fits:
    m = len(draws)
    values = ends.value.reshape(-1, m)
    chosen, origin, at_best = best_of(values, chart.totals(torch.arange(m)), names)
    place = chosen * m + torch.arange(m)
    theta, norm, lowest = ends.theta[place], ends.gradient_norm[place], ends.lowest[place]
    cancellation, minimum = chart.cancellation(theta), is_minimum(norm, lowest, tolerance)
    perfect = ends.value[place] <= _PERFECT * chart.totals(torch.arange(m))
    doubtful = (minimum & ~perfect & ~chart.regular(theta)).nonzero()[:, 0]
    if len(doubtful):
        minimum[doubtful] = _is_fold(chart, theta[doubtful], doubtful)
    diverged = diverges(cancellation, minimum)
    return Fits(
        weight=ends.weight[place],
        parameters=theta,
        loss=values.gather(0, chosen[None])[0],
        losses=values.mT.contiguous(),
        iterations=ends.iterations[place],
        converged=minimum & ~diverged,
        gradient_norm=norm,
        smallest_hessian_eigenvalue=lowest,
        share_of_starts_at_best=at_best.double().mean(0),
        cancellation=cancellation,
        diverged=diverged,
        origin=origin,
        format="network",
        ranks=(),
        ridge=0.0,
    )
