"""A scheduler and workers as processes of their own, as on a cluster, all of them on 127.0.0.1."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from krratio.pipeline.processes import kill_group

__all__ = ["Cluster", "cluster"]

LIMIT = 60.0  # seconds until the scheduler has written its file

Process = subprocess.Popen[bytes]


@dataclass
class Cluster:
    """Processes of ``dask scheduler`` and ``dask worker``, and the file that says where."""

    file: Path
    scheduler: Process
    workers: list[Process] = field(default_factory=list)

    def add_workers(self, count: int) -> None:
        """Start workers with one thread each."""
        self.workers += [_dask("worker", self.file, "--nthreads", "1") for _ in range(count)]


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    """Start a cluster, and end all of it with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    found = Cluster(file, _dask("scheduler", file, "--port", "0", "--no-dashboard"))
    try:
        until = time.monotonic() + LIMIT
        while not file.exists():
            if time.monotonic() > until or found.scheduler.poll() is not None:
                raise RuntimeError("dask scheduler does not start")
            time.sleep(0.05)
        found.add_workers(workers)
        yield found
    finally:
        for process in (*found.workers, found.scheduler):
            kill_group(process.pid)
            process.wait()
        with suppress(FileNotFoundError):
            file.unlink()


def _dask(what: str, file: Path, *options: Sequence[str] | str) -> Process:
    command = [sys.executable, "-m", "distributed.cli.dask_" + what]
    return subprocess.Popen(
        [*command, "--scheduler-file", str(file), "--host", "127.0.0.1", *map(str, options)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=file.parent,
        env={**os.environ, "DASK_DISTRIBUTED__DIAGNOSTICS__NVML": "False"},
    )
