"""Several hundred small architectures with the dimension that theory predicts for each.

Weights over patches have a closed formula (``expected``). The function of the image can have fewer
dimensions, for reasons with names; ``predicted`` takes them into account:

- *ambient*: the function lies in a space that is smaller;
- *overlap*: windows overlap (:func:`krratio.counts.overlap_dimension`);
- *defect*: the CP format is defective (:func:`krratio.counts.cp_dimension`).
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import nn

from krratio.networks.layers import Shape
from krratio.theory import counts
from krratio.theory.counts import expected_cp_dimension
from krratio.theory.dimension import intrinsic_dimension

__all__ = ["Architecture", "architectures", "compare"]

_CONV: dict[int, Callable[..., nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_POOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


@dataclass(frozen=True, eq=False)
class Architecture:
    """A network without weights, and what theory says of its dimension.

    Attributes
    ----------
    family, name
        What it belongs to, and its sizes.
    network, input_shape
        On ``device="meta"``.
    expected
        Dimension of the weights over patches by the formula of the format.
    predicted
        Dimension of the function of the image.
    reason
        Why the two differ: ``"equal"``, ``"ambient"``, ``"overlap"`` or ``"defect"``.
    """

    family: str
    name: str
    network: nn.Module
    input_shape: Shape
    expected: int
    predicted: int
    reason: str


def architectures() -> list[Architecture]:
    """Return all of them: N = 1, 2, 3, depth 1 to 4, K from 1 to 4 R, strides, groups, overlap."""
    families = (_plain(), _tucker(), _cp(), _deep(), _grouped(), _chains(), _defective())
    return list(itertools.chain(*families))


def compare(found: list[Architecture], *, seed: int) -> pd.DataFrame:
    """Exact dimension of each architecture beside the formulas, as a tidy frame.

    Parameters
    ----------
    found
        The architectures.
    seed
        Draws points and primes.
    """
    rows = []
    for case in found:
        exact = intrinsic_dimension(case.network, case.input_shape, seed=seed)
        assert exact.certificate is not None
        rows.append(
            {
                "family": case.family,
                "name": case.name,
                "parameters": exact.parameters,
                "expected": case.expected,
                "predicted": case.predicted,
                "reason": case.reason,
                "exact": exact.value,
                "upper": exact.certificate.upper,
                "theorem": exact.certificate.theorem,
            }
        )
    return pd.DataFrame(rows)


def _conv(inputs: int, outputs: int, kernel: Shape, **options: Any) -> nn.Module:
    return _CONV[len(kernel)](inputs, outputs, kernel, bias=False, **options)


def _network(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers).to("meta")


def _head(channels: int, p: Shape, T: int) -> tuple[nn.Module, nn.Module]:
    return nn.Flatten(), nn.Linear(channels * math.prod(p), T, bias=False)


def _sizes(l: Shape, p: Shape, stride: Shape, pool: Shape) -> Shape:
    """Input sizes that leave exactly p positions."""
    along = zip(l, p, stride, pool, strict=True)
    return tuple(n + s * (m * q - 1) for n, m, s, q in along)


def _plain() -> Iterator[Architecture]:
    """Conv -> pool -> FC, windows side by side and overlapping."""
    geometries: tuple[tuple[Shape, Shape, Shape, Shape], ...] = (
        ((5,), (3,), (5,), (1,)),  # kernel, positions, stride, pool: side by side
        ((4,), (3,), (1,), (5,)),
        ((6,), (2,), (1,), (2,)),  # overlapping
        ((7,), (3,), (2,), (1,)),
        ((4,), (3,), (1,), (1,)),
        ((3, 2), (2, 3), (3, 2), (1, 1)),
        ((3, 4), (2, 2), (1, 1), (1, 1)),
        ((4, 3), (2, 2), (1, 1), (1, 2)),
        ((5, 4), (2, 1), (2, 1), (1, 2)),
        ((5, 4), (2, 2), (2, 3), (2, 1)),
        ((4, 3), (3, 2), (3, 1), (1, 2)),
        ((2, 3, 2), (2, 1, 2), (2, 3, 2), (1, 1, 1)),
        ((2, 3, 2), (1, 2, 2), (1, 2, 1), (1, 1, 1)),
    )
    for (l, p, stride, pool), C, K, T in itertools.product(
        geometries, (1, 3), (1, 2, 3, 4), (1, 2)
    ):
        shape = (C, *_sizes(l, p, stride, pool))
        net = _network(_conv(C, K, l, stride=stride), _POOL[len(l)](pool), *_head(K, p, T))
        step = tuple(s * q for s, q in zip(stride, pool, strict=True))
        expected = counts.cnn(l=(C, *l), K=K, P=math.prod(p) * T).intrinsic
        predicted = counts.overlap_dimension(C=C, l=l, K=K, p=p, step=step, T=T)
        ambient = T * C * counts.distinct_features(l, p, step)
        reason = "ambient" if predicted == ambient else "overlap"
        reason = "equal" if predicted == expected else reason
        name = f"C={C} l={l} p={p} step={step} K={K} T={T}"
        yield Architecture(f"plain {len(l)}D", name, net, shape, expected, predicted, reason)


def _tucker() -> Iterator[Architecture]:
    """1x1 -> spatial -> 1x1 -> pool -> FC, K from 1 to 4 R; pooling leaves windows side by side."""
    bottlenecks = (((3,), (2,)), ((3, 2), (2, 1)), ((2, 2), (1, 3)), ((2, 1, 2), (1, 2, 1)))
    for (l, p), (C, first, R), T in itertools.product(bottlenecks, ((4, 2, 3), (5, 3, 2)), (1, 2)):
        for K in sorted({1, R - 1, R, R + 1, 2 * R, 4 * R}):
            pool = tuple(n + 1 for n in l)
            shape = (C, *_sizes(l, p, (1,) * len(l), pool))
            point = (1,) * len(l)
            net = _network(
                _conv(C, first, point),
                _conv(first, R, l),
                _conv(R, K, point),
                _POOL[len(l)](pool),
                *_head(K, p, T),
            )
            ranks = (first, *(None,) * len(l))
            found = counts.tucker(l=(C, *l), R_j=ranks, R=R, K=K, P=math.prod(p) * T)
            name = f"C={C} R_1={first} l={l} R={R} K={K} p={p} T={T}"
            yield _exactly(f"Tucker {len(l)}D", name, net, shape, found.intrinsic)


def _exactly(family: str, name: str, net: nn.Module, shape: Shape, expected: int) -> Architecture:
    return Architecture(family, name, net, shape, expected, expected, "equal")


def _cp() -> Iterator[Architecture]:
    """1x1 -> depthwise -> 1x1 -> pool -> FC, K from 1 to 4 R."""
    for (l, p), (C, R), T in itertools.product(
        (((3,), (3,)), ((2, 2), (2, 1))), ((4, 2), (3, 3), (5, 4)), (1, 2)
    ):
        for K in sorted({1, R - 1, R, 2 * R, 4 * R}):
            yield _cp_case(f"CP {len(l)}D", C, l, R, K, p, T)


def _cp_case(family: str, C: int, l: Shape, R: int, K: int, p: Shape, T: int) -> Architecture:
    pool, point = tuple(n + 1 for n in l), (1,) * len(l)
    net = _network(
        _conv(C, R, point),
        _conv(R, R, l, groups=R),
        _conv(R, K, point),
        _POOL[len(l)](pool),
        *_head(K, p, T),
    )
    shape = (C, *_sizes(l, p, point, pool))
    P = math.prod(p) * T
    modes = (C, math.prod(l))
    predicted = counts.cp(l=modes, R=R, K=K, P=P).intrinsic
    last = min(K, P)
    expected = expected_cp_dimension((*modes, last), R) + (last * (P - last) if last < R else 0)
    if last >= R:
        expected = expected_cp_dimension((*modes, P), R)
    reason = "equal" if predicted == expected else "defect"
    name = f"C={C} l={l} R={R} K={K} p={p} T={T}"
    return Architecture(family, name, net, shape, expected, predicted, reason)


def _deep() -> Iterator[Architecture]:
    """Two to four convolutions, each with stride = window, then FC: tensor trains."""
    kernels: tuple[tuple[Shape, ...], ...] = (
        ((3,), (2,)),
        ((2,), (3,), (2,)),
        ((2,), (2,), (2,), (3,)),
        ((2, 1), (1, 3)),
        ((2, 1), (2, 2), (1, 2)),
    )
    for chain, C, T in itertools.product(kernels, (1, 3), (1, 4)):
        for bonds in itertools.islice(itertools.product((2, 3, 5), repeat=len(chain)), 0, 27, 4):
            widths, p = (C, *bonds), (2,) * len(chain[0])
            layers = [
                _conv(a, b, l, stride=l)
                for (a, b), l in zip(itertools.pairwise(widths), chain, strict=True)
            ]
            sizes = tuple(
                m * math.prod(n) for m, n in zip(p, zip(*chain, strict=True), strict=True)
            )
            modes = [C * math.prod(chain[0]), *map(math.prod, chain[1:]), math.prod(p) * T]
            net = _network(*layers, *_head(bonds[-1], p, T))
            expected = counts.tt(n=modes, r=bonds).intrinsic
            name = f"C={C} kernels={chain} bonds={bonds} T={T}"
            yield _exactly(f"depth {len(chain)}", name, net, (C, *sizes), expected)


def _grouped() -> Iterator[Architecture]:
    """1x1 -> grouped -> FC: the gauge of a grouped layer is that of its blocks."""
    for groups, inside, outside, T in itertools.product((1, 2, 3), (1, 2), (1, 2), (2, 3)):
        first, R, C, l, p = groups * inside, groups * outside, 7, (3, 2), (2, 1)
        net = _network(
            _conv(C, first, (1, 1)), _conv(first, R, l, groups=groups, stride=l), *_head(R, p, T)
        )
        core, P = groups * inside * outside * math.prod(l), math.prod(p) * T
        if R > P or inside > outside * math.prod(l) or outside > inside * math.prod(l):
            continue
        expected = C * first + core + R * P - groups * (inside**2 + outside**2)
        name = f"groups={groups} C={C} R_1={first} R={R} T={T}"
        yield _exactly("grouped", name, net, (C, 6, 2), expected)


def _chains() -> Iterator[Architecture]:
    """Single-channel filters in 1D: sum k - (h - 1) alone, sum k - h + T P before an FC layer.

    Kohn, Merkh, Montúfar and Trager (2022); Kohn, Montúfar, Shahverdi and Trager (2023).
    """
    chains = (
        ((3, 2), (1, 1)),
        ((2, 4), (2, 1)),
        ((3, 2, 4), (2, 1, 3)),
        ((4, 3, 2, 2), (1, 2, 1, 2)),
    )
    for (filters, strides), T in itertools.product(chains, (0, 1, 2, 5)):
        length, p = 1, 3 if T else 1
        length = p
        for k, s in zip(reversed(filters), reversed(strides), strict=True):
            length = (length - 1) * s + k
        layers = [_conv(1, 1, (k,), stride=s) for k, s in zip(filters, strides, strict=True)]
        head = _head(1, (p,), T) if T else ()
        free = sum(filters) - len(filters) + (T * p if T else 1)
        predicted = min(free, max(T, 1) * length)
        reason = "equal" if predicted == free else "ambient"
        name = f"filters={filters} strides={strides} T={T}"
        shape = (1, length)
        yield Architecture(
            "filter chains", name, _network(*layers, *head), shape, free, predicted, reason
        )


def _defective() -> Iterator[Architecture]:
    """CP formats of Abo, Ottaviani and Peterson (2009) as networks, beside sound neighbours."""
    formats = ((3, 3, 3, 4), (3, 4, 4, 5), (3, 5, 5, 7), (2, 3, 7, 5), (9, 2, 2, 3), (2, 3, 9, 5))
    for C, l, P, R in formats:
        for rank in (R - 1, R, R + 1):
            yield _cp_case("defective CP", C, (l,), rank, rank, (P,), 1)
