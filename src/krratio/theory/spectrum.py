"""Numerical rank of the Jacobian in float64, read off where the singular values have a gap."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from krratio.errors import KrratioError, MemoryLimitError
from krratio.networks.graph import Graph
from krratio.networks.layers import BatchNorm
from krratio.theory.adjoint import offset, pull_back

__all__ = ["NoSpectralGapError", "singular_values", "spectral_rank"]

_SMALLEST_GAP = 1e3
"""A rank is read off only where neighbouring singular values differ by this factor."""


class NoSpectralGapError(KrratioError, ArithmeticError):
    """The singular values fall off without a gap, so the float rank cannot be trusted."""


def singular_values(
    graph: Graph, own: set[int], *, bias: bool, seed: int, max_bytes: int
) -> tuple[Float[np.ndarray, " n"], int, int]:
    """Singular values of the Jacobian at a random point, its larger side, and its parameters.

    Parameters
    ----------
    graph
        The network, its weights by reference.
    own
        Ids of the weights that vary.
    bias
        Whether constants belong to the function.
    seed
        Draws the point.
    max_bytes
        Limit on the size of the Jacobian.

    Raises
    ------
    MemoryLimitError
        The Jacobian would be larger than the limit.
    """
    point, owners = _random_point(graph, own, bias=bias, seed=seed)
    graph = _fixed(graph, owners, bias=bias, seed=seed)

    def function(values: tuple[Tensor, ...]) -> Tensor:
        place = dict(zip(owners, values, strict=True))
        return _function(graph.map_weights(lambda w: place.get(id(w), w)), bias=bias)

    count = sum(p.numel() for p in point)
    size = 8 * 2 * count**2
    if size > max_bytes:
        raise MemoryLimitError(
            f"the Jacobian in {count:,} parameters takes up to {size:,} bytes, above max_bytes = "
            f"{max_bytes:,}; take a smaller network or raise max_bytes"
        )
    jacobian = _sketched_jacobian(function, point, count, seed) if count else torch.zeros(1, 1)
    return torch.linalg.svdvals(jacobian).numpy(), max(jacobian.shape), count


def _random_point(
    graph: Graph, own: set[int], *, bias: bool, seed: int
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Draw the varying weights of a graph, and say which tensors of the network they stand for."""
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[int, Tensor] = {}
    for _, name, weight in graph.weights():
        if id(weight) not in own or (name == "bias" and not bias):
            continue
        if id(weight) not in drawn:
            fan_in = max(1, weight[0].numel() if weight.ndim > 1 else 1)
            normal = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            drawn[id(weight)] = normal / fan_in**0.5
    return tuple(drawn.values()), tuple(drawn)


def _sketched_jacobian(
    function: Callable[[tuple[Tensor, ...]], Tensor],
    point: tuple[Tensor, ...],
    count: int,
    seed: int,
) -> Float[Tensor, "rows parameters"]:
    """Jacobian, or 2 (number of parameters) random combinations of its rows if it has more.

    Random combinations keep the rank with probability one, and the cost then depends on the number
    of parameters, not on the size T D of the function.
    """
    value, pull, *_ = torch.func.vjp(function, point)
    if len(value) <= 2 * count:
        rows = torch.eye(len(value), dtype=value.dtype)
    else:
        generator = torch.Generator().manual_seed(seed + 2)
        rows = torch.randn(2 * count, len(value), generator=generator, dtype=value.dtype)
    (columns,) = torch.func.vmap(pull, chunk_size=64)(rows)
    return torch.cat([c.flatten(1) for c in columns], 1)


def _fixed(graph: Graph, owners: tuple[int, ...], *, bias: bool, seed: int) -> Graph:
    """Give the weights that do not vary their values; BatchNorm has those of a generic batch."""
    generator = torch.Generator().manual_seed(seed + 1)
    statistics, offsets = set(), set()
    for node, name, weight in graph.weights():
        if isinstance(node.layer, BatchNorm) and name in ("mean", "variance"):
            statistics.add(id(weight))
        elif name == "bias" and not bias:
            offsets.add(id(weight))

    def draw(weight: Tensor) -> Tensor:
        if id(weight) in owners:
            return weight
        if id(weight) in statistics:
            return torch.rand(weight.shape, generator=generator, dtype=torch.float64) + 0.5
        if id(weight) in offsets:
            return torch.zeros(weight.shape, dtype=torch.float64)
        if weight.is_meta:
            raise KrratioError("a fixed weight lies on device='meta'; its value is needed")
        return weight.detach().cpu().to(torch.float64)

    return graph.map_weights(draw)


def _function(graph: Graph, *, bias: bool) -> Float[Tensor, " coordinates"]:
    """Coordinates of the function: its input weight and, if asked for, its constant term."""
    size = int(np.prod(graph.output_shape, dtype=int))
    rows = torch.eye(size, dtype=torch.float64).reshape(size, *graph.output_shape)
    weight = pull_back(graph, rows).reshape(-1)
    return torch.cat([weight, offset(graph, rows).reshape(-1)]) if bias else weight


def spectral_rank(values: Float[np.ndarray, " n"], larger_side: int) -> tuple[int, float]:
    """Numerical rank and the gap behind it; refuse to guess where there is none."""
    rounding = float(values[0]) * larger_side * np.finfo(np.float64).eps
    rank = int((values > rounding).sum())
    if rank == 0:
        return 0, float("inf")
    below = max(float(values[rank]) if rank < len(values) else 0.0, rounding)
    gap = float(values[rank - 1]) / below
    if gap < _SMALLEST_GAP:
        raise NoSpectralGapError(
            f"singular value {rank} is only {gap:.1f} times the next one or rounding, where "
            f"{_SMALLEST_GAP:.0f} times is asked for; try another seed or a smaller network"
        )
    return rank, gap
