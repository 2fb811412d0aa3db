"""Record chapter 09's networks, trained on Fashion-MNIST and decomposed: two hours on a core.

    python scripts/record_decompositions.py [--jobs 2] [--verify]

Fashion-MNIST is found or downloaded as `krratio.datasets` says. Every seed's part lies in runs/
when it is finished and is not done again. Writes data/results/decomposed-classifiers.csv and its
provenance beside it. One thread; two seeds at once with --jobs 2. --verify trains and decomposes
the networks of one seed again, drawn at random, and compares: to the last bit, which holds on the
same processor alone (see data/README.md).
"""

import argparse
import io
import platform
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context

import pandas as pd
import torch

import krratio as kr
from krratio.experiments.classifying import Images
from krratio.paths import DATA, RUNS
from krratio.pipeline.records import seal
from krratio.pipeline.runlog import processor
from krratio.pipeline.verifying import verify_record
from krratio.rewriting.trial import Trial
from krratio.writing import write_text

CHANNELS, IMAGES, SEEDS = (16, 32, 64, 64), 30_000, (0, 1, 2, 3, 4)


def part(seed: int) -> pd.DataFrame:
    """One seed, from runs/ where it is finished."""
    torch.set_num_threads(1)
    path = RUNS / f"decomposed-{'-'.join(map(str, CHANNELS))}-{IMAGES}-{seed}.csv"
    if not path.exists():
        write_text(path, compute(seed))
        print(f"seed {seed} is finished", flush=True)
    return pd.read_csv(path)


def compute(seed: int) -> str:
    """Train and decompose the networks of a seed: rows as CSV."""
    training, test = (kr.datasets.load("fashion-mnist", split) for split in ("train", "test"))
    train = Images.of(training, count=IMAGES)
    rows = Trial(CHANNELS, seed=seed).run(train, Images.of(test, like=training))
    return str(rows.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def verify() -> None:
    """Do one seed again and compare all but the seconds."""
    torch.set_num_threads(1)
    seed = random.choice(SEEDS)
    print(f"again: seed {seed}", flush=True)
    key, apart = ("seed", "method", "share", "stage"), ("seconds",)
    again = pd.read_csv(io.StringIO(compute(seed)))
    name = "decomposed-classifiers"
    print(verify_record(name, f"{name}.csv", again, key=key, apart=apart).said())


def main() -> None:
    """Record all seeds and where the numbers come from, or verify one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="seeds at once, one core each")
    parser.add_argument("--verify", action="store_true", help="a seed, drawn at random")
    options = parser.parse_args()
    if options.verify:
        verify()
        return
    RUNS.mkdir(exist_ok=True)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        frame = pd.concat(pool.map(part, SEEDS), ignore_index=True)
    text = frame.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    write_text(DATA / "results/decomposed-classifiers.csv", text)
    facts = {
        "data": f"Fashion-MNIST, first {IMAGES:,} training images, all test images",
        "trial": {k: v for k, v in asdict(Trial(CHANNELS)).items() if k != "seed"},
        "seeds": SEEDS,
        "hardware": f"{processor()}, one thread a network, float32",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    seal("decomposed-classifiers", facts, ["decomposed-classifiers.csv"])


if __name__ == "__main__":
    main()
