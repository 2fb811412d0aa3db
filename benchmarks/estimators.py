"""Time of a sweep of low-rank fits, as a ratio to tensorly's regressors on the same data.

One Gaussian design of 20,000 rows, two shapes of the weight; 5 ranks x 8 random starts x 20 draws
of the noise: 800 fits. Ours forms the statistics once and runs ``kr.fit`` once per rank, all draws
together (with its ninth, spectral descent). The peers are ``TuckerRegressor`` and ``CPRegressor``
of equal ranks, unregularized, their tolerance and iterations as they come, on tensorly's torch
backend (half the time of its numpy one here); fits of a few draws and starts are timed for each
rank and scaled to 800. Each of these losses is compared with ours.

Goals: at least 50 times as fast, and never a worse loss. On a machine that others use too, take one
thread: where a thread has to wait for its core the other one waits with it, in every operation.

    python benchmarks/estimators.py [--threads 1 2] [--samples 20000] [--fits 2] [--out FILE]
"""

import argparse
import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tensorly
import torch
from tensorly.cp_tensor import cp_to_tensor
from tensorly.regression import CPRegressor, TuckerRegressor
from tensorly.tucker_tensor import tucker_to_tensor
from torch import Tensor

import krratio as kr
from krratio.experiments.draws import Draws
from krratio.experiments.seeds import torch_stream
from krratio.experiments.statistics import Statistics

SEED = 0
PREDICTION_VARIANCE = 2.0  # of the truth, in units of the noise
WORSE = 1e-9  # relative difference of losses that counts as one


@dataclass(frozen=True)
class Case:
    """A shape (modes, positions), our format, the peer's decomposition, and five ranks."""

    shape: tuple[int, ...]
    format: str
    peer: str
    ranks: tuple[tuple[int, ...], ...]  # as ``kr.fit`` takes them
    truth: int = 2  # which of the ranks

    def peer_rank(self, ranks: tuple[int, ...]) -> list[int] | int:
        """The same ranks as the peer takes them."""
        if self.peer == "cp":
            return ranks[-1]
        return list(ranks) if self.format == "tucker" else 2 * list(ranks)


ONE_TO_FIVE = tuple((r,) for r in range(1, 6))
TUCKER = ((1, 1, 1, 1, 1), (1, 1, 1, 2, 2), (2, 2, 2, 2, 2), (2, 2, 2, 3, 3), (3, 3, 3, 3, 3))
CASES = (
    Case((27, 25), "matrix", "tucker", ONE_TO_FIVE),
    Case((27, 25), "matrix", "cp", ONE_TO_FIVE),
    Case((3, 3, 3, 5, 5), "tucker", "tucker", TUCKER),
    Case((3, 3, 3, 5, 5), "cp", "cp", ONE_TO_FIVE),
)


def normal(case: Case, name: str, *shape: int) -> Tensor:
    generator = torch_stream(SEED, name, case.shape, case.peer)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def truth(case: Case) -> Tensor:
    """A random weight of the class with the middle ranks."""
    rank = case.peer_rank(case.ranks[case.truth])
    sizes = rank if isinstance(rank, list) else [rank] * len(case.shape)
    shapes = zip(case.shape, sizes, strict=True)
    factors = [normal(case, f"factor {i}", *shape) for i, shape in enumerate(shapes)]
    if case.peer == "tucker":
        weight = tucker_to_tensor((normal(case, "core", *sizes), factors))
    else:
        weight = cp_to_tensor((torch.ones(sizes[0], dtype=torch.float64), factors))
    return weight * math.sqrt(PREDICTION_VARIANCE) / weight.norm()


def data(case: Case, samples: int, draws: int) -> tuple[Tensor, Tensor]:
    """Centred X (n, *shape) and y (n, draws)."""
    X = normal(case, "design", samples, *case.shape)
    X -= X.mean(0)
    y = X.flatten(1) @ truth(case).reshape(-1, 1) + normal(case, "noise", samples, draws)
    return X, y - y.mean(0)


def statistics(X: Tensor, y: Tensor) -> Draws:
    """One output for each draw, then one regression for each."""
    joint = Statistics.from_batches([(X, y)])
    return Draws(
        joint.gram,
        joint.cross.mT[..., None].contiguous(),
        joint.total[:, None],
        joint.modes,
        joint.positions,
    )


def ours(case: Case, X: Tensor, y: Tensor, starts: int) -> tuple[float, list[kr.Fits]]:
    start = time.perf_counter()
    draws = statistics(X, y)
    fits = [
        kr.fit(draws, case.format, ranks, starts=starts, exchanges=0, seed=SEED)
        for ranks in case.ranks
    ]
    return time.perf_counter() - start, fits


def peer(
    case: Case, ranks: tuple[int, ...], X: Tensor, y: Tensor, seed: int
) -> tuple[float, float]:
    """Seconds and loss of one fit."""
    kind = CPRegressor if case.peer == "cp" else TuckerRegressor
    regressor = kind(case.peer_rank(ranks), reg_W=0, random_state=seed, verbose=0)
    start = time.perf_counter()
    regressor.fit(X, y)
    seconds = time.perf_counter() - start
    return seconds, float((y - regressor.predict(X)).square().sum()) / (2 * len(y))


def measure(case: Case, samples: int, draws: int, starts: int, sampled: int) -> list[dict]:
    """One row for each rank; our seconds are those of the whole sweep."""
    X, y = data(case, samples, draws)
    kr.fit(statistics(X, y)[:1], case.format, case.ranks[0], starts=1, exchanges=0)  # warm-up
    peer(case, case.ranks[0], X[:2000], y[:2000, 0], SEED)
    seconds, fits = ours(case, X, y, starts)
    rows = []
    for ranks, found in zip(case.ranks, fits, strict=True):
        times, differences = [], []
        for draw in range(sampled):
            peer_seconds, loss = peer(case, ranks, X, y[:, draw], seed=draw % starts)
            times.append(peer_seconds)
            differences.append((float(found.loss[draw]) - loss) / loss)
        rows.append(
            {
                "shape": "x".join(map(str, case.shape)),
                "format": case.format,
                "peer": kind_name(case),
                "ranks": " ".join(map(str, ranks)),
                "sweep_s": seconds,
                "peer_s": sum(times) / sampled * draws * starts,
                "worst": max(differences),
                "converged": float(found.converged.double().mean()),
                "diverged": float(found.diverged.double().mean()),
                "at_best": float(found.share_of_starts_at_best.mean()),
                "iterations": float(found.iterations.double().mean()),
            }
        )
    return rows


def kind_name(case: Case) -> str:
    return "CPRegressor" if case.peer == "cp" else "TuckerRegressor"


def summary(rows: Sequence[dict]) -> dict[str, object]:
    """The sweep over all ranks of one case."""
    first = rows[0]
    peer_seconds = sum(row["peer_s"] for row in rows)
    mean = {k: sum(r[k] for r in rows) / len(rows) for k in ("converged", "diverged", "at_best")}
    return {
        "shape": first["shape"],
        "format": first["format"],
        "peer": first["peer"],
        "threads": torch.get_num_threads(),
        "seconds": round(first["sweep_s"], 2),
        "peer_s": round(peer_seconds, 1),
        "ratio": round(peer_seconds / first["sweep_s"], 1),
        "worst_loss": max(row["worst"] for row in rows),
        **{name: round(value, 4) for name, value in mean.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--starts", type=int, default=8)
    parser.add_argument("--fits", type=int, default=2, help="peer fits timed for each rank")
    parser.add_argument("--cases", type=int, nargs="*", default=range(len(CASES)))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    tensorly.set_backend("pytorch")
    rows = []
    for threads, number in itertools.product(options.threads, options.cases):
        torch.set_num_threads(threads)
        found = measure(CASES[number], options.samples, options.draws, options.starts, options.fits)
        shown = pd.DataFrame(found).drop(columns=["shape", "format", "sweep_s"])
        print(shown.to_string(index=False), flush=True)
        rows.append(summary(found))
    frame = pd.DataFrame(rows)
    print(frame.to_string(index=False))
    print("worse losses:", int((frame["worst_loss"] > WORSE).sum()))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
