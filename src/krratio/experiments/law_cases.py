"""Small networks for the law of least squares: d from 8 to 44, K/R from 1 to 8."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from krratio.experiments.seeds import torch_stream
from krratio.networks.layers import Shape
from krratio.theory.tensorize import tensorize

__all__ = ["LawCase", "expanded", "law_cases", "true_weight", "with_truth"]

_CONV: dict[int, Callable[..., nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d}
_POOL: dict[int, Callable[..., nn.Module]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d}


@dataclass(frozen=True, eq=False)
class LawCase:
    """A network, float64 and without constants.

    Attributes
    ----------
    family, name
        What it belongs to, and its sizes.
    ratio
        K/R: channels that the expansion puts out over channels that enter it; 1 without one.
    network, input_shape
        Its last layer is linear.
    """

    family: str
    name: str
    ratio: int
    network: nn.Sequential
    input_shape: Shape


def law_cases() -> list[LawCase]:
    """All of them, with weights on ``device="meta"``."""
    cases = [*_plain(), *_deep_plain()]
    for family in (_tucker, _cp, _deep):
        cases += [case for ratio in (1, 2, 4, 8) for case in family(ratio)]
    return cases


def _conv(inputs: int, outputs: int, l: Shape, **options: int | Shape) -> nn.Module:
    return _CONV[len(l)](inputs, outputs, l, bias=False, **options)


def _network(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers).to(dtype=torch.float64, device="meta")


def _head(channels: int, p: Shape, T: int = 1) -> tuple[nn.Module, nn.Module]:
    return nn.Flatten(), nn.Linear(channels * math.prod(p), T, bias=False)


def _plain() -> Iterator[LawCase]:
    """Conv -> pool -> FC; the first two with windows side by side, the others overlapping."""
    for C, K, l, d, stride, pool, p, T in (
        (2, 1, (3,), (9,), (3,), (1,), (3,), 1),
        (3, 2, (2, 3), (4, 9), (2, 3), (1, 1), (2, 3), 1),
        (3, 2, (4,), (9,), (1,), (2,), (3,), 1),
        (2, 2, (3, 2), (6, 5), (1, 1), (2, 2), (2, 2), 1),
        (2, 3, (3,), (8,), (1,), (2,), (3,), 2),
    ):
        layers = _conv(C, K, l, stride=stride), _POOL[len(l)](pool), *_head(K, p, T)
        name = f"C={C} l={l} K={K} p={p} T={T}"
        yield LawCase("CNN", name, 1, _network(*layers), (C, *d))


def _deep_plain() -> Iterator[LawCase]:
    """Two and three convolutions, a grouped one and a residual-free separable chain."""
    layers = _conv(2, 2, (2,), stride=2), _conv(2, 3, (2,), stride=2), *_head(3, (3,))
    yield LawCase("deep", "2 -> 2 -> 3", 1, _network(*layers), (2, 12))
    chain = (
        _conv(2, 2, (2,), stride=2),
        _conv(2, 2, (3,), stride=3),
        _conv(2, 2, (2,), stride=2),
    )
    yield LawCase("deep", "2 -> 2 -> 2 -> 2", 1, _network(*chain, *_head(2, (2,))), (2, 24))
    grouped = _conv(5, 4, (1,)), _conv(4, 4, (3,), groups=2, stride=3), *_head(4, (3,))
    yield LawCase("grouped", "5 -> 4 in 2 groups", 1, _network(*grouped), (5, 9))
    separable = _conv(2, 2, (3, 1)), _conv(2, 2, (1, 2)), nn.AvgPool2d((2, 3)), *_head(2, (2, 2))
    yield LawCase("separable", "3x1, 1x2", 1, _network(*separable), (2, 6, 7))


def _tucker(ratio: int) -> Iterator[LawCase]:
    """1x1 -> spatial -> 1x1 -> pool -> FC."""
    for C, first, R, l, d, pool, p in (
        (4, 2, 2, (3,), (11,), (3,), (3,)),
        (5, 2, 3, (2, 2), (5, 5), (2, 2), (2, 2)),
    ):
        K, point = ratio * R, (1,) * len(l)
        block = _conv(C, first, point), _conv(first, R, l), _conv(R, K, point)
        net = _network(*block, _POOL[len(l)](pool), *_head(K, p))
        yield LawCase("Tucker", f"C={C} R_1={first} l={l} R={R} p={p}", ratio, net, (C, *d))


def _cp(ratio: int) -> Iterator[LawCase]:
    """1x1 -> depthwise -> 1x1 -> pool -> FC."""
    for C, R, l, d, pool, p in (
        (4, 2, (3,), (11,), (3,), (3,)),
        (5, 2, (2, 2), (5, 5), (2, 2), (2, 2)),
    ):
        K, point = ratio * R, (1,) * len(l)
        block = _conv(C, R, point), _conv(R, R, l, groups=R), _conv(R, K, point)
        net = _network(*block, _POOL[len(l)](pool), *_head(K, p))
        yield LawCase("CP", f"C={C} l={l} R={R} p={p}", ratio, net, (C, *d))


def _deep(ratio: int) -> Iterator[LawCase]:
    """Two spatial convolutions with an expansion between them, or behind both."""
    K = 2 * ratio
    between = (
        _conv(2, 2, (2,), stride=2),
        _conv(2, K, (1,)),
        _conv(K, 3, (2,), stride=2),
        *_head(3, (2,)),
    )
    yield LawCase("deep", "2 -> 2 -> K -> 3", ratio, _network(*between), (2, 8))
    behind = (
        _conv(2, 2, (2,), stride=2),
        _conv(2, 2, (3,), stride=3),
        _conv(2, K, (1,)),
        *_head(K, (3,), 2),
    )
    yield LawCase("deep", "2 -> 2 -> 2 -> K, T=2", ratio, _network(*behind), (2, 18))


def with_truth(case: LawCase, *, seed: int) -> nn.Sequential:
    """The network of a case with weights: a truth far from singular points of its class.

    Every weight is a random semi-orthogonal matrix (output channels by the rest), and the last one
    is scaled such that ‖W_X‖² is the number of outputs.

    Parameters
    ----------
    case
        The case.
    seed
        Master seed; every case has its own draw.
    """
    network = copy.deepcopy(case.network).to_empty(device="cpu")
    last = network[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        for i, weight in enumerate(network.parameters()):
            generator = torch_stream(seed, "truth", case.family, case.name, case.ratio, i)
            drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            left, _, right = torch.linalg.svd(drawn.flatten(1), full_matrices=False)
            weight.copy_((left @ right).reshape(weight.shape))
        norm = tensorize(network, case.input_shape).input_weight.norm()
        last.weight.mul_(math.sqrt(last.out_features) / norm)
    return network


def true_weight(network: nn.Sequential, case: LawCase) -> Tensor:
    """W_X (D, 1, T) of a network with weights."""
    weight = tensorize(network, case.input_shape).input_weight.flatten(1)
    return weight.mT[:, None].contiguous()


def expanded(network: nn.Sequential, channels: int, *, seed: int) -> nn.Sequential:
    """The same function with its expansion, the last 1x1 convolution, to another K.

    The expansion H (R to K) is drawn, and the linear layer B behind it replaced by the one that
    reads the same R channels: B' H' = B H.

    Parameters
    ----------
    network
        ... -> 1x1 convolution -> (pooling) -> Flatten -> Linear, weights with values.
    channels
        K', at least R.
    seed
        Draws H'.
    """
    layers = list(network)
    i = max(j for j, m in enumerate(layers) if getattr(m, "kernel_size", None) in ((1,), (1, 1)))
    narrow, last = layers[i], layers[-1]
    assert isinstance(narrow, nn.Conv1d | nn.Conv2d)
    assert isinstance(last, nn.Linear)
    old = narrow.weight.detach().flatten(1)  # (K, R)
    R = old.shape[1]
    generator = torch_stream(seed, "expansion", channels)
    new = torch.randn(channels, R, generator=generator, dtype=torch.float64) / R**0.5
    fc = last.weight.detach().reshape(last.out_features, len(old), -1)  # (T, K, P)
    read = torch.einsum("tkp,kr->trp", fc, old)
    fc = torch.einsum("trp,rk->tkp", read, torch.linalg.pinv(new))
    kernel = tuple(narrow.kernel_size)
    wide = type(narrow)(R, channels, kernel, bias=False, dtype=torch.float64)  # type: ignore[arg-type]
    head = nn.Linear(fc[0].numel(), last.out_features, bias=False, dtype=torch.float64)
    with torch.no_grad():
        wide.weight.copy_(new.reshape(wide.weight.shape))
        head.weight.copy_(fc.flatten(1))
    return nn.Sequential(*layers[:i], wide, *layers[i + 1 : -1], head)
