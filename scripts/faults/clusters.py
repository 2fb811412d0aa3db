"""Faults of a cluster: a scheduler and workers that are processes of their own."""

import os
import signal
import time
from pathlib import Path

from numpy.random import Generator

from faults import Fault, Outcome
from faults.small_cluster import cluster
from faults.small_sweep import LIMIT, Found, Sweep, everything_ends

__all__ = ["FAULTS"]

SECONDS = 2.0


def kill_scheduler(folder: Path, times: int, generator: Generator) -> Outcome:
    """SIGKILL the scheduler at a random moment; start another and go on with --resume."""
    found, said = Found(0, 0, 0), ""
    for number in range(times):
        sweep = Sweep(folder / str(number), cases=10)
        with cluster(folder / f"first-{number}", workers=2) as first:
            options = ("--scheduler", str(first.file))
            with everything_ends(sweep.start(*options, jobs=None)) as process:
                sweep.wait_for(1, process)
                time.sleep(generator.uniform(0, SECONDS))
                os.kill(first.scheduler.pid, signal.SIGKILL)
                _, said = process.communicate(timeout=LIMIT)
                is_told = "the scheduler is gone" in said and "Traceback" not in said
                found += Found(0, 0, int(process.returncode != 1 or not is_told))
        with cluster(folder / f"second-{number}", workers=2) as second:
            code, _ = sweep.run("--scheduler", str(second.file), jobs=None)
        found += sweep.found() if code == 0 else Found(0, 0, 1)
    return Outcome(times, found.lost, found.doubled, found.wrong, said.strip().splitlines()[-1])


def kill_remote_worker(folder: Path, times: int, generator: Generator) -> Outcome:
    """SIGKILL a worker with all that it started; another one joins."""
    found = Found(0, 0, 0)
    for number in range(times):
        sweep = Sweep(folder / str(number), cases=10)
        with cluster(folder / f"cluster-{number}", workers=2) as ours:
            options = ("--scheduler", str(ours.file))
            with everything_ends(sweep.start(*options, jobs=None)) as process:
                sweep.wait_for(1, process)
                time.sleep(generator.uniform(0, SECONDS))
                os.killpg(ours.workers[int(generator.integers(2))].pid, signal.SIGKILL)
                ours.add_workers(1)
                process.communicate(timeout=LIMIT)
                found += Found(0, 0, int(process.returncode != 0))
        found += sweep.found()
    said = "its task ran again on another worker; the sweep went on by itself"
    return Outcome(times, found.lost, found.doubled, found.wrong, said)


def leave_cluster(folder: Path, times: int, generator: Generator) -> Outcome:
    """Ctrl-C of a sweep on a cluster that goes on: its tasks must not go on there."""
    found = Found(0, 0, 0)
    for number in range(times):
        sweep = Sweep(folder / str(number), cases=10)
        with cluster(folder / f"cluster-{number}", workers=2) as ours:
            options = ("--scheduler", str(ours.file))
            with everything_ends(sweep.start(*options, jobs=None)) as process:
                sweep.wait_for(1, process)
                time.sleep(generator.uniform(0, SECONDS))
                os.killpg(process.pid, signal.SIGINT)
                process.communicate(timeout=LIMIT)
                found += Found(0, 0, int(process.returncode != 130))
            code, _ = sweep.run(*options, jobs=None)
            found += sweep.found() if code == 0 else Found(0, 0, 1)
    said = "exit code 130; the cluster was free for the next sweep, which did the rest"
    return Outcome(times, found.lost, found.doubled, found.wrong, said)


FAULTS = (
    Fault(
        "kill-scheduler",
        "a scheduler of Dask, in a process of its own",
        "SIGKILL at a random moment; then --resume on another",
        kill_scheduler,
        1,
        8,
    ),
    Fault(
        "kill-remote-worker",
        "a worker of a cluster",
        "SIGKILL at a random moment",
        kill_remote_worker,
        1,
        6,
    ),
    Fault("ctrl-c-on-a-cluster", "`krratio sweep`", "Ctrl-C; then --resume", leave_cluster, 1, 4),
)
