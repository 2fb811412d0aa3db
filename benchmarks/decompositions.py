"""Time and error of one kernel's decomposition, beside tensorly called directly by its defaults.

Kernels n × n × 3 × 3, Gaussian with channels that decay like 1/√i in both modes, rotated; ranks
n/4, and the bond of the train too. The peers are ``partial_tucker``, ``parafac`` and
``tensor_train`` on tensorly's torch backend. Ours does more: Tucker iterates until the error
changes by 1e-6 instead of 1e-4; CP takes the best of three starts and then the terms of least norm
within 1 % of the error, which is seen in the degeneracy (sum of the squared norms of the terms over
the squared norm of their sum); the train is the same decomposition. Both run in turn, and medians
are kept.

    python benchmarks/decompositions.py [--threads 1] [--sizes 64 128 256 512] [--out FOLDER]
"""

import argparse
import json
import math
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import tensorly
import torch
from tensorly.decomposition import parafac, partial_tucker, tensor_train
from torch import Tensor

from krratio.experiments.seeds import torch_stream
from krratio.pipeline.environment import cores
from krratio.pipeline.provenance import versions
from krratio.rewriting.decomposing.canonical import canonical, stabilized
from krratio.rewriting.decomposing.terms import degeneracy, summed
from krratio.rewriting.decomposing.train import train
from krratio.rewriting.decomposing.tucker import bases, tucker

SEED = 0
WINDOW = (3, 3)

Found = tuple[Tensor, float]  # the approximation, and the degeneracy of its terms


def random_kernel(n: int) -> Tensor:
    """(n, n, 3, 3): Gaussian, decaying, rotated."""
    generator = torch_stream(SEED, "kernel", n)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    decay = torch.arange(1, n + 1, dtype=torch.float64).rsqrt()
    rotations = [torch.linalg.qr(normal(n, n)).Q * decay for _ in range(2)]
    left, right = rotations
    half = torch.einsum("ka,abij->kbij", left, normal(n, n, *WINDOW))
    return torch.einsum("cb,kbij->kcij", right, half)


def from_tucker(U: Tensor, core: Tensor, V: Tensor) -> Found:
    return torch.einsum("ks,srl,cr->kcl", U, core, V), math.nan


def from_cp(factors: list[Tensor]) -> Found:
    return summed(factors), degeneracy([factors])


def from_train(cores: list[Tensor]) -> Found:
    return torch.einsum("cir,rjk->kcij", *cores).flatten(2), math.nan


def our_tucker(kernel: Tensor, R: int) -> Callable[[], Found]:
    found = tucker(kernel.flatten(2)[None], (R, R), bases(kernel.flatten(2)[None]))
    return lambda: from_tucker(*(part[0] for part in found))


def our_cp(kernel: Tensor, R: int) -> Callable[[], Found]:
    whole = kernel.flatten(2)
    terms = canonical(whole, R, lambda start: torch_stream(SEED, "cp", R, start))
    factors = stabilized(whole, terms)
    return lambda: from_cp(factors)


def our_train(kernel: Tensor, R: int) -> Callable[[], Found]:
    found = train(kernel[None], (R,))
    return lambda: from_train([core[0] for core in found])


def peer_tucker(kernel: Tensor, R: int) -> Callable[[], Found]:
    (core, (U, V)), _ = partial_tucker(kernel.flatten(2), (R, R), modes=[0, 1])
    return lambda: from_tucker(U, core, V)


def peer_cp(kernel: Tensor, R: int) -> Callable[[], Found]:
    found = parafac(kernel.flatten(2), R, random_state=SEED)
    return lambda: from_cp(list(found.factors))


def peer_train(kernel: Tensor, R: int) -> Callable[[], Found]:
    K, C, first, second = kernel.shape
    matrix = kernel.permute(1, 2, 3, 0).reshape(C * first, second * K)
    left, right = tensor_train(matrix, [1, R, 1]).factors
    return lambda: from_train([left.reshape(C, first, R), right.reshape(R, second, K)])


OURS = {"tucker": our_tucker, "cp": our_cp, "tt": our_train}
PEERS = {"tucker": peer_tucker, "cp": peer_cp, "tt": peer_train}


def timed(
    task: Callable[[Tensor, int], Callable[[], Found]], kernel: Tensor, R: int
) -> tuple[float, Found]:
    """Seconds of the decomposition, and what it found, put together outside of them."""
    start = time.perf_counter()
    found = task(kernel, R)
    seconds = time.perf_counter() - start
    return seconds, found()


def measure(method: str, n: int, repeats: int) -> dict[str, object]:
    """One row: medians of ours and of the peer, which take turns."""
    kernel, R = random_kernel(n), n // 4
    row: dict[str, object] = {"method": method, "C": n, "K": n, "rank": R}
    row["kernel"] = "x".join(map(str, WINDOW))
    seconds: dict[str, list[float]] = {"": [], "peer_": []}
    for _ in range(repeats):
        for prefix, tasks in (("", OURS), ("peer_", PEERS)):
            taken, (near, cancelled) = timed(tasks[method], kernel, R)
            seconds[prefix].append(taken)
            row[f"{prefix}error"] = float((near - kernel.flatten(2)).norm() / kernel.norm())
            row[f"{prefix}degeneracy"] = cancelled
    medians = {f"{prefix}seconds": statistics.median(times) for prefix, times in seconds.items()}
    return row | medians | {"peer_over_ours": medians["peer_seconds"] / medians["seconds"]}


COLUMNS = (
    "method C K kernel rank seconds error peer_seconds peer_error peer_over_ours "
    "degeneracy peer_degeneracy"
).split()


def machine() -> dict[str, object]:
    """What the numbers depend on."""
    return {
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "cores": cores(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tensorly.set_backend("pytorch")
    warnings.filterwarnings("ignore", message="Trying to compute SVD")  # parafac's own start
    rows = []
    for method in OURS:
        measure(method, 16, 1)  # warm-up
        for n in options.sizes:
            rows.append(measure(method, n, options.repeats if n <= 256 else 1))
            print(pd.DataFrame(rows[-1:], columns=COLUMNS).to_string(index=False), flush=True)
    frame = pd.DataFrame(rows, columns=COLUMNS)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        frame.to_csv(options.out / "decompositions.csv", index=False, float_format="%.6g")
        record = json.dumps(machine() | {"seed": SEED, "repeats": options.repeats}, indent=2)
        (options.out / "decompositions.json").write_text(record + "\n")


if __name__ == "__main__":
    main()
