"""A sweep: the tasks of a grid run by Dask, their results kept in a store."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from krratio.errors import ClusterError, GridError, StoreError
from krratio.pipeline.environment import cores
from krratio.pipeline.layout import CLONE, Layout
from krratio.pipeline.store import Store
from krratio.pipeline.sweeping.cluster import connect
from krratio.pipeline.sweeping.engine import Engine
from krratio.pipeline.sweeping.function import code_of
from krratio.pipeline.sweeping.grid import Grid
from krratio.pipeline.sweeping.progress import EVERY, SweepProgress
from krratio.pipeline.sweeping.stopping import Stop
from krratio.pipeline.sweeping.summary import Summary, summary_of
from krratio.pipeline.sweeping.task import Status, Task

__all__ = ["SweepOptions", "SweepReport", "checkpoint_of", "store_path", "sweep"]

RECHECK = 20.0
"""Seconds after which the code on disk is compared again with the code that was hashed."""


@dataclass(frozen=True)
class SweepOptions:
    """How to run a grid.

    Attributes
    ----------
    store : pathlib.Path or None
        The file of results; by default ``runs/NAME.sqlite``.
    jobs : int or None
        Workers on this machine, one thread each; by default one per core.
    scheduler : str or None
        Address or scheduler file of a running Dask cluster, used instead.
    resume : bool
        Go on with a store that holds results of these tasks; without it such a store is refused.
    retry : bool
        Also run again what failed.
    max_hours : float or None
        Stop then, as after Ctrl-C.
    shuffle : int or None
        Seed of a random order, so that what is finished early stands for the whole grid.
    patience : float
        Seconds to wait for another sweep on the same store to end.
    every : float
        Seconds between two tables on stderr; infinity for none.
    """

    store: Path | None = None
    jobs: int | None = None
    scheduler: str | None = None
    resume: bool = False
    retry: bool = False
    max_hours: float | None = None
    shuffle: int | None = None
    patience: float = 0.0
    every: float = EVERY

    def __post_init__(self) -> None:
        if self.jobs is not None and not 1 <= self.jobs <= 4096:
            raise GridError(f"--jobs is {self.jobs}; give 1 to 4096")
        if self.jobs is not None and self.scheduler is not None:
            raise GridError("--jobs starts workers here, --scheduler uses others: give one of them")
        if self.max_hours is not None and not 0 < self.max_hours < 1e6:
            raise GridError(f"--max-hours is {self.max_hours}; give a positive number")
        if not 0 <= self.patience < 1e9:
            raise GridError(f"--wait is {self.patience}; give seconds, 0 or more")


@dataclass(frozen=True)
class SweepReport:
    """How a sweep ended.

    Attributes
    ----------
    store : pathlib.Path
    counts : mapping
        Tasks of the grid by status.
    stopped : {"", "interrupted", "out of time"}
        Why some are still pending.
    summary : Summary or None
        The table, over all that is done.
    """

    store: Path
    counts: Mapping[Status, int]
    stopped: str
    summary: Summary | None


def sweep(grid: Grid, options: SweepOptions | None = None, layout: Layout = CLONE) -> SweepReport:
    """Run the tasks of a grid that its store has no result of.

    Results are in the store as soon as they come, and do not depend on workers, order, load or
    restarts: each task runs alone in a process with one thread, and gets its seed as an argument.

    Raises
    ------
    GridError
        If the grid or the options are wrong; nothing ran.
    StoreError, BusyError
        If the store is none, damaged, in use, or holds results and `options.resume` is not set.
    ClusterError
        If the scheduler is gone, or the workers have other code; what was stored is kept.
    OSError
        If the store cannot be written; what was stored is kept.
    """
    options = options or SweepOptions()
    path = store_path(grid.name, options.store, layout)
    with Store(path, write=True, patience=options.patience) as store:
        _plan(store, grid, options)
        counts = store.counts()
        summary = summary_of(store)
        finished = counts["done"] + counts["failed"]
        stopped = ""
        if counts["pending"]:
            with (
                SweepProgress(len(grid), finished, summary, options.every) as progress,
                Stop() as stop,
            ):
                stopped = _run(store, grid, options, progress, stop)
        return SweepReport(path, store.counts(), stopped, summary)


def store_path(name: str, given: Path | None, layout: Layout = CLONE) -> Path:
    """Return where the results of a grid lie."""
    return given or layout.runs / f"{name}.sqlite"


def checkpoint_of(store: Path, key: str) -> Path:
    """Return the file in which a running task keeps how far it is."""
    return store.resolve().with_name(f"{store.name}.checkpoints") / f"{key}.pt"


def _plan(store: Store, grid: Grid, options: SweepOptions) -> None:
    store.plan(
        grid.name,
        grid.tasks(),
        names=grid.names,
        show=None if grid.show is None else asdict(grid.show),
        folder=None if grid.folder is None else str(grid.folder),
    )
    counts = store.counts()
    known = counts["done"] + counts["failed"]
    if known and not (options.resume or options.retry):
        raise StoreError(
            f"{store.path} holds {known} of these {len(grid)} tasks already; go on with the rest "
            "by --resume, or give another --store"
        )
    if options.retry:
        store.retry()


def _run(
    store: Store, grid: Grid, options: SweepOptions, progress: SweepProgress, stop: Stop
) -> str:
    """Run what is pending; return why it stopped before the end, if it did."""
    end = math.inf if options.max_hours is None else time.monotonic() + 3600 * options.max_hours
    code = _SameCode(grid, store)

    def is_over() -> bool:
        return stop.asked or time.monotonic() >= end

    def request(task: Task) -> dict[str, Any]:
        return {
            "function": task.function,
            "folder": None if grid.folder is None else str(grid.folder),
            "code": task.code,
            "parameters": task.parameters,
            "seed": task.seed,
            "checkpoint": str(checkpoint_of(store.path, task.key)),
        }

    with connect(options.scheduler, options.jobs or cores()) as client:
        engine = Engine(client, grid.limits, request, progress.say)
        for ended in engine.run(_waiting(store, options), is_over):
            if ended:
                store.record(ended)
                progress.add(ended)
                code.add(task for task, _ in ended)
                _remove_checkpoints(store, [task for task, _ in ended])
            if code.is_due():
                code.check()
            progress.tick()
        code.check()
    if not store.counts()["pending"]:
        return ""
    return "interrupted" if stop.asked else "out of time"


def _waiting(store: Store, options: SweepOptions) -> Iterator[Task]:
    tasks = (row.task for row in store.rows("pending"))
    if options.shuffle is None:
        yield from tasks
    else:
        mixed = list(tasks)
        Random(options.shuffle).shuffle(mixed)
        yield from mixed


def _remove_checkpoints(store: Store, tasks: list[Task]) -> None:
    for task in tasks:
        checkpoint_of(store.path, task.key).unlink(missing_ok=True)
    with suppress(OSError):  # the last one takes the folder with it
        checkpoint_of(store.path, "").parent.rmdir()


class _SameCode:
    """Watches that the code is still the one whose hash the results are kept under.

    What was stored since the last look may have been made by either: it is computed again.
    """

    def __init__(self, grid: Grid, store: Store) -> None:
        self._grid, self._store = grid, store
        self._began = code_of(grid.function, grid.folder)
        self._looked = time.monotonic()
        self._since: list[Task] = []

    def add(self, tasks: Iterable[Task]) -> None:
        """Note what was stored."""
        self._since += tasks

    def is_due(self) -> bool:
        """Say whether it is time to look again."""
        return time.monotonic() - self._looked >= RECHECK

    def check(self) -> None:
        """Raise ClusterError if the code has changed."""
        if code_of(self._grid.function, self._grid.folder) != self._began:
            self._store.forget(self._since)
            raise ClusterError(
                f"the code was changed while the sweep ran; the last {len(self._since)} results "
                "are dropped, those before are kept under the old code. Run it again: the changed "
                "code has results of its own"
            )
        self._looked = time.monotonic()
        self._since.clear()
