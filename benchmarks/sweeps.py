"""Tasks per second of a sweep into its store, beside Dask's own, and what each task costs.

Rates are of tasks that return at once, from the first result to the last; the peer is Dask alone:
`Client.map` with every future released as it completes, nothing stored. Overhead is what a task of
0.3 s takes beyond that, one at a time. Memory is the driver's resident set during one sweep.
Costs are processor seconds for each chunk that travels, with a scheduler and workers that are
processes of their own and chunks of one task.

Goals: at least 500 tasks a second with two workers, at most 5 ms per task beyond Dask's own, and
memory that does not grow.

    python benchmarks/sweeps.py [--tasks 20000] [--workers 1 2 4 8] [--memory 100000] [--out DIR]
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pandas as pd
import psutil
from distributed import as_completed

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from faults.small_cluster import cluster
from krratio.pipeline.store import Store
from krratio.pipeline.sweep import checkpoint_of
from krratio.pipeline.sweeping import engine
from krratio.pipeline.sweeping.cluster import connect
from krratio.pipeline.sweeping.grid import Grid
from krratio.pipeline.sweeping.task import Outcome, Task

MODULE = """
import time
def at_once(case, seed):
    return {"value": case * seed}
def slowly(case, seed):
    time.sleep(0.3)
    return {"value": case * seed}
"""
SECONDS = 0.3


def grid(folder: Path, tasks: int, function: str = "at_once") -> Grid:
    """`tasks` calls, a multiple of 10."""
    (folder / "bench_trials.py").write_text(MODULE)
    cases = list(range(tasks // 10))
    return Grid(
        "bench", f"bench_trials:{function}", {"case": cases}, seeds=range(10), folder=folder
    )


def at_once(number: int) -> dict[str, int]:
    return {"value": number}


def slowly(number: int) -> dict[str, int]:
    time.sleep(SECONDS)
    return {"value": number}


def running(store: Store, what: Grid, client: Any) -> Iterator[list[tuple[Task, Outcome]]]:
    """Run a grid as `krratio.pipeline.sweep` does; yield what was stored."""
    store.plan(what.name, what.tasks(), names=what.names, show=None, folder=str(what.folder))

    def request(task: Task) -> dict[str, Any]:
        return {
            "function": task.function,
            "folder": str(what.folder),
            "code": task.code,
            "parameters": task.parameters,
            "seed": task.seed,
            "checkpoint": str(checkpoint_of(store.path, task.key)),
        }

    waiting = (row.task for row in store.rows("pending"))
    for ended in engine.Engine(client, what.limits, request, print).run(waiting, lambda: False):
        if ended:
            store.record(ended)
            yield ended


def ours(folder: Path, tasks: int, workers: int, function: str = "at_once") -> float:
    """Seconds per task from the first result to the last."""
    what = grid(folder, tasks, function)
    with (
        Store(folder / f"{function}-{tasks}-{workers}.sqlite", write=True) as store,
        connect(None, workers) as client,
    ):
        stamps = [(time.perf_counter(), len(ended)) for ended in running(store, what, client)]
        assert store.counts()["done"] == tasks
    return (stamps[-1][0] - stamps[0][0]) / (tasks - stamps[0][1])


def peer(tasks: int, workers: int) -> float:
    """Seconds per task of Dask alone."""
    with connect(None, workers) as client:
        futures = client.map(at_once, range(tasks), pure=False)
        done = as_completed(futures, loop=client.loop, with_results=True)
        del futures
        stamps = [(time.perf_counter(), len(batch)) for batch in done.batches()]
    return (stamps[-1][0] - stamps[0][0]) / (tasks - stamps[0][1])


def peer_slowly(tasks: int) -> float:
    """Seconds per task of 0.3 s, one after the other, by Dask alone."""
    stamps = []
    with connect(None, 1) as client:
        for number in range(tasks):
            client.submit(slowly, number, pure=False).result()
            stamps.append(time.perf_counter())
    return (stamps[-1] - stamps[0]) / (tasks - 1)


def rates(tasks: int, workers: list[int]) -> pd.DataFrame:
    """Tasks per second against workers."""
    rows = []
    for count in workers:
        with TemporaryDirectory() as folder:
            sweep, dask = 1 / ours(Path(folder), tasks, count), 1 / peer(min(tasks, 5000), count)
        rows.append(
            {"workers": count, "tasks": tasks, "sweep": sweep, "dask": dask, "ratio": sweep / dask}
        )
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def memory(tasks: int) -> pd.DataFrame:
    """The driver's resident set, in MB, as a sweep goes on."""
    rows, done, said = [], 0, 0
    with TemporaryDirectory() as folder:
        what = grid(Path(folder), tasks)
        with Store(Path(folder) / "m.sqlite", write=True) as store, connect(None, 2) as client:
            for ended in running(store, what, client):
                done += len(ended)
                if done - said >= tasks / 20:
                    said = done
                    resident = psutil.Process().memory_info().rss / 1e6
                    rows.append({"tasks": done, "driver_MB": round(resident, 1)})
    print(rows[0], rows[-1], flush=True)
    return pd.DataFrame(rows)


def costs(tasks: int) -> pd.DataFrame:
    """Processor milliseconds per chunk of one task, by process, and what one task adds."""
    with TemporaryDirectory() as name, patch.object(engine, "MOST", 1):
        folder = Path(name)
        what = grid(folder, tasks)
        with (
            cluster(folder / "cluster", workers=2) as far,
            Store(folder / "c.sqlite", write=True) as store,
            connect(str(far.file), 2) as client,
        ):
            driver, scheduler = psutil.Process(), psutil.Process(far.scheduler.pid)
            steps = running(store, what, client)
            done = len(next(steps))
            before = busy(driver), busy(scheduler)
            done = sum(len(ended) for ended in steps)
            spent = busy(driver) - before[0], busy(scheduler) - before[1]
    beyond = 1e3 * (ours_slowly() - peer_slowly(20))
    rows = [
        {"what": "driver, per chunk", "ms": 1e3 * spent[0] / done},
        {"what": "scheduler, per chunk", "ms": 1e3 * spent[1] / done},
        {"what": "task of 0.3 s, beyond Dask's own", "ms": beyond},
    ]
    print(*rows, sep="\n", flush=True)
    return pd.DataFrame(rows)


def ours_slowly() -> float:
    with TemporaryDirectory() as folder:
        return ours(Path(folder), 20, 1, "slowly")


def busy(process: psutil.Process) -> float:
    """Processor seconds of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--memory", type=int, default=100_000, metavar="TASKS")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write three tables there")
    options = parser.parse_args()
    tables = {
        "sweeps": rates(options.tasks, options.workers),
        "sweeps-memory": memory(options.memory),
        "sweeps-costs": costs(min(options.tasks, 2000)),
    }
    for name, table in tables.items():
        print(table.to_string(index=False, float_format="%.3g"))
        if options.out is not None:
            text = table.to_csv(index=False, float_format="%.4g", lineterminator="\n")
            (options.out / f"{name}.csv").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
