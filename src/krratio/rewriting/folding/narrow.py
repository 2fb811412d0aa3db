"""The algebra of a fold: K channels y are replaced by z = Q y, and read as Qᵀ z.

The rows of Q are orthonormal and span what the producers can write, or what the readers take.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from krratio.experiments.decompositions import thin_svd
from krratio.networks.layers import BatchNorm
from krratio.rewriting.folding.edges import Edge
from krratio.rewriting.folding.plain import RefusalError
from krratio.theory.fold import IN_RANGE, Conv, layer_like, offset_of, sees_padding

__all__ = ["Narrowed", "narrowed"]


@dataclass(frozen=True)
class Narrowed:
    """What replaces the layers of an edge.

    Attributes
    ----------
    modules
        Name -> layer, in float64; a norm becomes the identity.
    channels
        That are left of K.
    saved
        Parameters.
    error
        Frobenius norm of the singular values that were cut off over that of all; 0 without them.
    """

    modules: dict[str, nn.Module]
    channels: int
    saved: int
    error: float


@dataclass
class _Weights:
    """Weight and offset of a layer while it is rewritten: (outputs, inputs, window), (outputs,)."""

    weight: Tensor
    offset: Tensor


def narrowed(edge: Edge, model: nn.Module, tol: float | None, *, smaller: bool = True) -> Narrowed:
    """Rewrite an edge with the channels that can pass it.

    Parameters
    ----------
    edge, model
        What is rewritten; the network stays as it is.
    tol
        As for :func:`krratio.fold`.
    smaller
        Refuse what saves nothing. Without it, K channels may become K others.

    Raises
    ------
    RefusalError
        That are no fewer than there are, or no parameter would be saved.
    """
    names = list(dict.fromkeys([*edge.producers, *edge.readers]))
    old = {name: model.get_submodule(name) for name in names}
    norms = {name: model.get_submodule(norm) for name, norm in edge.norms.items()}
    weights = {name: _read(old[name], edge, name, norms.get(name)) for name in names}
    _gather_offsets(edge, weights)
    span, error = _written(edge, weights, old, tol)
    rows = _taken(edge, weights)
    if smaller and min(len(rows), span.shape[1]) >= edge.K:
        raise RefusalError(f"its {edge.K} channels are no more than what can pass")
    if len(rows) < span.shape[1]:  # fewer combinations are read than are written
        take, error = thin_svd(rows)[2], 0.0
    else:
        take = span.T
        _move_offsets(edge, weights, span)
    embed = take.T
    for name in edge.producers:
        written = weights[name]
        written.weight = torch.einsum("rk,k...->r...", take, written.weight)
        written.offset = take @ written.offset
    for name, part in edge.slices.items():
        whole = weights[name].weight
        new = torch.einsum("mkl,kr->mrl", whole[:, part], embed)
        weights[name].weight = torch.cat([whole[:, : part.start], new, whole[:, part.stop :]], 1)
    modules: dict[str, nn.Module] = {
        name: layer_like(old[name], weights[name].weight, weights[name].offset) for name in names
    }
    modules |= {norm: nn.Identity() for norm in edge.norms.values()}
    before = [*old.values(), *norms.values()]
    saved = sum(_size(module) for module in before) - sum(map(_size, modules.values()))
    if smaller and saved <= 0:
        raise RefusalError("folding would save no parameters")
    return Narrowed(modules, len(take), saved, error)


def _read(layer: nn.Module, edge: Edge, name: str, norm: nn.Module | None) -> _Weights:
    """Weight (outputs, inputs, window) and offset, a BatchNorm in eval mode taken in."""
    assert isinstance(layer, Conv | nn.Linear)
    weight = layer.weight.detach()
    channels = edge.totals.get(name, weight.shape[1])
    weight = weight.reshape(len(weight), channels, -1)
    offset = offset_of(layer)
    if norm is None:
        return _Weights(weight, offset)
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    if norm.running_mean is None or norm.running_var is None:
        raise RefusalError("a norm without running statistics follows")
    spec = BatchNorm(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)
    scale, shift = spec.scale().detach(), spec.shift().detach()
    return _Weights(weight * scale[:, None, None], offset * scale + shift)


def _gather_offsets(edge: Edge, weights: dict[str, _Weights]) -> None:
    """Where all readers see the same sum of producers, one of them takes all offsets."""
    first, *others = edge.signs.values()
    if edge.padded or any(signs != first for signs in others):
        return
    taker = next((name for name, factor in first.items() if factor), None)
    if taker is None or len(first) < 2:
        return
    total = torch.stack([factor * weights[name].offset for name, factor in first.items()]).sum(0)
    for name in first:
        weights[name].offset = torch.zeros_like(weights[name].offset)
    weights[taker].offset = total / first[taker]


def _written(
    edge: Edge, weights: dict[str, _Weights], old: dict[str, nn.Module], tol: float | None
) -> tuple[Float[Tensor, "K r"], float]:
    """An orthonormal basis of what the producers write, and the error of what was cut off."""
    columns = torch.cat([weights[name].weight.flatten(1) for name in edge.producers], 1)
    left, sizes, _ = thin_svd(columns)
    rank = len(sizes) if tol is None else max(1, int((sizes > tol * sizes[0]).sum()))
    error = float(sizes[rank:].norm() / sizes.norm().clamp_min(1e-300))
    span = left[:, :rank]
    rest = _outside(edge, weights, span)
    if rest and _constants_needed(edge, old):
        outside = torch.stack(list(rest.values()))
        constant, strength, _ = thin_svd(outside.T)
        span = torch.cat([span, constant[:, strength > IN_RANGE * strength[0]]], 1)
    return span, error


def _taken(edge: Edge, weights: dict[str, _Weights]) -> Float[Tensor, "m K"]:
    """The combinations of channels that the readers take, one for each output and place."""
    rows = [
        weights[name].weight[:, part].permute(0, 2, 1).flatten(0, 1)
        for name, part in edge.slices.items()
    ]
    return torch.cat(rows)


def _outside(edge: Edge, weights: dict[str, _Weights], span: Tensor) -> dict[str, Tensor]:
    """The parts (K,) of the producers' offsets that lie outside of a span, where there is one."""
    found = {}
    for name in edge.producers:
        offset = weights[name].offset
        rest = offset - span @ (span.T @ offset)
        if float(rest.norm()) > IN_RANGE * float(offset.norm()):
            found[name] = rest
    return found


def _constants_needed(edge: Edge, old: dict[str, nn.Module]) -> bool:
    """Whether a constant cannot become the readers' bias: zero padding, or a loop of the edge."""
    loop = any(name in edge.producers for name in edge.readers)
    return loop or bool(edge.padded) or any(sees_padding(old[name]) for name in edge.readers)


def _move_offsets(edge: Edge, weights: dict[str, _Weights], span: Tensor) -> None:
    """What the span leaves out of the producers' offsets goes to the bias of the readers."""
    rest = _outside(edge, weights, span)
    for name, part in edge.slices.items() if rest else ():
        reader, signs = weights[name], edge.signs[name]
        seen = sum(signs.get(n, 0.0) * offset for n, offset in rest.items())
        reader.offset = reader.offset + torch.einsum("mkl,k->m", reader.weight[:, part], seen)


def _size(module: nn.Module) -> int:
    return sum(math.prod(p.shape) for p in module.parameters())
