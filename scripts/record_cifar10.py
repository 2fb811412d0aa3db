"""Record chapter 03's results on CIFAR-10, whose images are not in the clone.

    KRRATIO_DATA=/folder/with/cifar10 python scripts/record_cifar10.py [--verify]

Writes data/results/cifar10-linear.csv and its provenance beside it. Takes some minutes. --verify
computes the networks of one bottleneck again, drawn at random, and compares.
"""

import argparse
import io
import random
from typing import Any

import numpy as np
import pandas as pd
import scipy
import torch

import krratio as kr
from krratio.experiments.image_regression import ImageRegression, train_grid
from krratio.paths import DATA, RUNS
from krratio.pipeline.records import seal
from krratio.pipeline.runlog import processor
from krratio.pipeline.verifying import verify_record
from krratio.writing import write_text

SETTINGS: dict[str, Any] = {"kernel": 5, "pool": 7, "ridge": 1e-2}
BOTTLENECKS, RATIOS, COLOURS = (1, 2, 4, 8), (1, 2, 4, 8), 2
STARTS, FIT_STARTS, SEED = 10, 40, 0

APART = ("share_at_best",)
"""Not verified: how many starts end at the best says how good the search is, and its steps have
changed since it was recorded; the best itself is verified."""


def record() -> tuple[pd.DataFrame, str]:
    """Fit and train every network, with all three colours and with two; say what the data are.

    Finished parts lie in runs/ and are not done again.
    """
    problem, title = _problem()
    parts = []
    for colours in (None, COLOURS):
        for rank in BOTTLENECKS:
            name = f"cifar10-{colours}-{rank}-{STARTS}-{FIT_STARTS}-{SEED}.csv"
            if not (RUNS / name).exists():
                write_text(RUNS / name, _part(problem, rank, colours).to_csv(index=False))
            parts.append(pd.read_csv(RUNS / name))
    return pd.concat(parts), title


def _problem() -> tuple[ImageRegression, str]:
    training, test = (kr.datasets.load("cifar10", split) for split in ("train", "test"))
    return ImageRegression.of(training, test, **SETTINGS), training.title


def verify() -> None:
    """Compute the networks of one bottleneck again and compare."""
    colours, rank = random.choice((None, COLOURS)), random.choice(BOTTLENECKS)
    print(f"again: R = {rank}, {colours or 'all'} colours", flush=True)
    text = _part(_problem()[0], rank, colours).to_csv(index=False, float_format="%.10g")
    again = pd.read_csv(io.StringIO(text))
    key = ("colours", "R", "K")
    found = verify_record("cifar10-linear", "cifar10-linear.csv", again, key=key, apart=APART)
    print(found.said())


def _part(problem: ImageRegression, rank: int, colours: int | None) -> pd.DataFrame:
    """All networks of one bottleneck."""
    optimum = _optimum(problem, rank, colours)
    facts = {
        "colours": colours or problem.input_shape[0],
        "optimum": optimum.loss,
        "share_at_best": optimum.share_of_starts_at_best,
        "gradient_norm": optimum.gradient_norm,
    }
    rows = []
    for row, _ in train_grid(problem, [optimum], RATIOS, starts=STARTS, seed=SEED, colours=colours):
        rows.append(facts | row)
        print({k: rows[-1][k] for k in ("colours", "R", "K", "excess", "accuracy")}, flush=True)
    return pd.DataFrame(rows)


def _optimum(problem: ImageRegression, rank: int, colours: int | None) -> kr.Fit:
    whole = SETTINGS["kernel"] ** 2  # the spatial mode is not compressed
    name, ranks = ("matrix", (rank,)) if colours is None else ("tucker", (colours, whole, rank))
    options: dict[str, Any] = {
        "starts": FIT_STARTS,
        "exchanges": 0,
        "seed": SEED,
        "ridge": problem.ridge,
    }
    return kr.fit(problem.statistics, name, ranks, **options)


def main() -> None:
    """Record the results and where they come from, or verify them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verify", action="store_true", help="a bottleneck, drawn at random")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.verify:
        verify()
        return
    RUNS.mkdir(exist_ok=True)
    frame, title = record()
    folder = DATA / "results"
    folder.mkdir(exist_ok=True)
    write_text(folder / "cifar10-linear.csv", frame.to_csv(index=False, float_format="%.10g"))
    facts = {
        "data": title,
        "settings": SETTINGS | {"starts": STARTS, "fit_starts": FIT_STARTS, "seed": SEED},
        "machine": f"{processor()}, 1 thread",
        "versions": {m.__name__: m.__version__.split("+")[0] for m in (np, scipy, torch, pd)},
    }
    seal("cifar10-linear", facts, ["cifar10-linear.csv"])


if __name__ == "__main__":
    main()
