"""Least squares over the functions of a network, for many draws."""

import math

import torch
from torch import Tensor, nn

from krratio.errors import KrratioError, ShapeError
from krratio.experiments.descent import Ends, descend
from krratio.experiments.draws import Draws
from krratio.experiments.fits import Fits
from krratio.experiments.network_chart import NetworkChart
from krratio.experiments.search import best_of
from krratio.experiments.seeds import stream
from krratio.networks.trace import trace
from krratio.theory.own import own_parameters

__all__ = ["fit_network", "network_chart"]

_MEMORY = 64 * 2**20  # bytes of Jacobians and Hessians that descend together
_MATRICES = 2**30


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
    """Fit every draw; see :func:`krratio.fit`."""
    chart, present = network_chart(draws, model)
    if starts == 0:
        if present is None:
            raise KrratioError("starts=0 begins at the network's weights, which lie on meta")
        theta = present[None]
    else:
        theta = torch.stack([_random(chart, seed, start) for start in range(starts)])
    m, number = len(draws), len(theta)
    rows = torch.arange(m).repeat(number)
    theta = theta.repeat_interleave(m, 0)
    together = max(1, _MEMORY // (8 * 4 * chart.size * (chart.size + chart.cross[0].numel())))
    parts = [
        descend(chart, some, which, max_iterations=max_iterations, tolerance=tolerance)
        for some, which in zip(theta.split(together), rows.split(together), strict=True)
    ]
    names = ("present weights",) if starts == 0 else [f"random {i}" for i in range(number)]
    return _fits(draws, chart, Ends.concatenate(parts), list(names), tolerance)


def _random(chart: NetworkChart, seed: int, start: int) -> Tensor:
    """θ with entries of variance 1 / fan-in, keyed by (seed, start)."""
    theta = torch.empty(chart.size, dtype=torch.float64)
    generator = stream(seed, "fit", "network", start)
    for use in chart.uses:
        fan_in = use.basis.flatten(1).count_nonzero() / use.basis.shape[1]
        entries = torch.from_numpy(generator.standard_normal(use.place.stop - use.place.start))
        theta[use.place] = entries / math.sqrt(max(1.0, float(fan_in)))
    return theta


def _fits(
    draws: Draws, chart: NetworkChart, ends: Ends, names: list[str], tolerance: float
) -> Fits:
    m = len(draws)
    values = ends.value.reshape(-1, m)
    chosen, origin, at_best = best_of(values, chart.totals(torch.arange(m)), names)
    place = chosen * m + torch.arange(m)
    nan = torch.full((m,), torch.nan, dtype=torch.float64)
    lowest = ends.lowest[place]
    norm = ends.gradient_norm[place]
    return Fits(
        weight=ends.weight[place],
        parameters=ends.theta[place],
        loss=values.gather(0, chosen[None])[0],
        losses=values.mT.contiguous(),
        iterations=ends.iterations[place],
        converged=(norm <= tolerance) & ~(lowest < -1e-8),
        gradient_norm=norm,
        smallest_hessian_eigenvalue=lowest,
        share_of_starts_at_best=at_best.double().mean(0),
        cancellation=nan,
        diverged=torch.zeros(m, dtype=torch.bool),
        origin=origin,
        format="network",
        ranks=(),
        ridge=0.0,
    )
