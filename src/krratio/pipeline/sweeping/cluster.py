"""Dask's scheduler and workers: on this machine, or where an address says."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from krratio.errors import ClusterError, MissingExtraError
from krratio.pipeline.sweeping.quiet import quiet

__all__ = ["connect", "threads"]

SETTINGS = {
    # What a dead worker was running comes back to the driver, which counts.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,  # a task goes to a free worker, or waits for one
    "distributed.admin.low-level-log-length": 10,  # whole messages, with all that tasks are given
    "distributed.diagnostics.nvml": False,
    "distributed.comm.retry.count": 2,
    "distributed.worker.preload": ["krratio.pipeline.sweeping.quiet"],  # of workers started here
}
PATIENCE = 10.0
"""Seconds to wait for a scheduler that does not answer."""


@contextmanager
def connect(scheduler: str | None, jobs: int) -> Iterator[Any]:
    """Yield a client of a scheduler, which ends with the block if it was started here.

    Parameters
    ----------
    scheduler
        ``tcp://host:port``, or a scheduler file (``.json``); None starts one for 127.0.0.1 alone.
    jobs
        Workers to start with it, one thread each.

    Raises
    ------
    ClusterError
        If there is no answer there.
    MissingExtraError
        If Dask is not installed.
    """
    try:
        import dask
        import distributed
    except ImportError as error:
        raise MissingExtraError(
            f"sweeps need {error.name}; install the extra: pip install 'krratio[sweeps]'"
        ) from None
    ours = _local(distributed, jobs) if scheduler is None else _client(distributed, scheduler)
    with dask.config.set(SETTINGS), quiet(), ours as client:
        yield client


@contextmanager
def _local(distributed: Any, jobs: int) -> Iterator[Any]:
    try:
        cluster = distributed.LocalCluster(
            n_workers=jobs,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,  # the sandbox has its own limit
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # of the health page, which Dask always serves
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
        )
    except (OSError, RuntimeError) as error:
        raise ClusterError(f"{jobs} workers could not be started here: {error}") from error
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


def _client(distributed: Any, scheduler: str) -> Any:
    is_file = scheduler.endswith(".json")
    if is_file and not Path(scheduler).is_file():
        raise ClusterError(f"--scheduler {scheduler}: there is no such file")
    where = {"scheduler_file": scheduler} if is_file else {"address": scheduler}
    try:
        return distributed.Client(**where, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"--scheduler {scheduler} does not answer ({error}); start one with 'dask scheduler', "
            "or leave --scheduler away to use this machine"
        ) from None


def threads(client: Any) -> int:
    """Return how many tasks the workers can run at once; 0 while there is none."""
    found = client.scheduler_info(n_workers=0)
    return int(found["total_threads"])
