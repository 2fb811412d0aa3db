"""Time of an exact dimension, as a ratio to numpy's SVD rank of a matrix of that size.

Networks for 3 x 32 x 32 images: a strided convolution, a bottleneck 1x1 -> 3x3 -> 1x1 with K = R
(``dense``, hardly any parameter is superfluous) or K = 4 R (``expanded``), pooling, 10 outputs.
The peer is ``numpy.linalg.matrix_rank`` of (parameters, parameters) float64, in the same run.

Goals at 4,000 parameters: the rank step at most 1.5 times the peer, the whole at most 3 times; a
network of 10,000 parameters in minutes (``--largest 10000``; there the squares are left out).

    python benchmarks/exact_dimension.py [--threads 2] [--largest 4000] [--out FILE]
"""

import argparse
import math
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

import krratio as kr
from krratio.theory.modular.field import Field, draw_prime

SHAPE = (3, 32, 32)
SIZES = (500, 1000, 2000, 4000)


def network(width: int, ratio: int) -> nn.Sequential:
    rank = width // 2 if ratio > 1 else width
    return nn.Sequential(
        nn.Conv2d(3, width, 5, stride=2, bias=False),
        nn.Conv2d(width, rank, 1, bias=False),
        nn.Conv2d(rank, rank, 3, bias=False),
        nn.Conv2d(rank, ratio * rank, 1, bias=False),
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(ratio * rank * 9, 10, bias=False),
    ).to("meta")


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def closest(parameters: int, ratio: int) -> nn.Sequential:
    widths = range(2, 200, 2)
    return min((network(w, ratio) for w in widths), key=lambda n: abs(size(n) - parameters))


def timed(function: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(parameters: int, ratio: int) -> dict[str, object]:
    net = closest(parameters, ratio)
    count, repeats = size(net), 3 if parameters < 4000 else 1
    result = kr.intrinsic_dimension(net, SHAPE)  # also loads what the first call loads
    certificate = result.certificate
    assert certificate is not None
    generator = np.random.default_rng(0)
    field = Field(draw_prime(generator))
    whole = timed(lambda: kr.intrinsic_dimension(net, SHAPE), repeats)
    rank = svd = math.nan
    if parameters <= SIZES[-1]:
        square = field.random(generator, count, count)
        peer = generator.normal(size=(count, count))
        rank = timed(lambda: field.rank(square), repeats)
        svd = timed(lambda: np.linalg.matrix_rank(peer), repeats)
    return {
        "network": "dense" if ratio == 1 else "expanded",
        "parameters": count,
        "dimension": int(result),
        "theorem": certificate.theorem,
        "rows": certificate.rows,
        "whole_s": round(whole, 3),
        "rank_s": round(rank, 3),
        "svd_s": round(svd, 3),
        "rank_over_svd": round(rank / svd, 2),
        "whole_over_svd": round(whole / svd, 2),
        "peak_GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def exponent(frame: pd.DataFrame, column: str) -> float:
    """Slope of log time on log parameters over the two largest sizes."""
    a, b = frame.dropna(subset=column).iloc[-2:].to_dict("records")
    return math.log(b[column] / a[column]) / math.log(b["parameters"] / a["parameters"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--largest", type=int, default=4000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [measure(s, ratio) for ratio in (1, 4) for s in SIZES if s <= options.largest]
    if options.largest > SIZES[-1]:
        rows += [measure(options.largest, ratio) for ratio in (1, 4)]
    frame = pd.DataFrame(rows)
    print(frame.to_string(index=False))
    for name, part in frame.sort_values("parameters").groupby("network"):
        growth = {c: exponent(part, c) for c in ("whole_s", "rank_s", "svd_s")}
        print(name, "growth exponents:", {c: round(g, 2) for c, g in growth.items()})
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
