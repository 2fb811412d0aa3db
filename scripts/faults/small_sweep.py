"""A small sweep to hurt: its function, its grid, the command, and what must come out."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["LIMIT", "Found", "Sweep", "drawn", "everything_ends"]

LIMIT = 180.0
"""Seconds that a command may take before it counts as hanging."""

MODULE = """
import os, signal, time
import numpy as np

def measure(case, seed, pause=0.15):
    time.sleep(pause)
    return {"value": float(np.random.default_rng([case, seed]).standard_normal())}

def bad(case, seed, how):
    time.sleep(0.05)
    if case == 3:
        if how == "raises":
            raise ZeroDivisionError("on purpose")
        if how == "hangs":
            time.sleep(3600)
        if how == "leaks":
            hoard = []
            while True:
                hoard.append(bytearray(20_000_000))
                time.sleep(0.02)
        if how == "kills its process":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "kills its worker":
            os.kill(os.getppid(), signal.SIGKILL)
    return {"value": float(np.random.default_rng([case, seed]).standard_normal())}
"""


def drawn(case: int, seed: int) -> float:
    """Return what the function returns: computed here, without any sweep."""
    import numpy as np

    return float(np.random.default_rng([case, seed]).standard_normal())


@dataclass(frozen=True)
class Found:
    """How a store differs from what must be in it."""

    lost: int
    doubled: int
    wrong: int

    def __add__(self, other: "Found") -> "Found":
        return Found(self.lost + other.lost, self.doubled + other.doubled, self.wrong + other.wrong)


@dataclass(frozen=True)
class Sweep:
    """A grid in a folder of its own: `cases` × `seeds` calls of `function`."""

    folder: Path
    function: str = "measure"
    cases: int = 8
    seeds: int = 4
    extra: str = ""
    limits: str = "{}"

    @property
    def store(self) -> Path:
        """The file of results."""
        return self.folder / "small.sqlite"

    @property
    def grid(self) -> Path:
        """The grid's file, written when asked for first."""
        path = self.folder / "small.yaml"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "small_trials.py").write_text(MODULE)
            path.write_text(
                f"function: small_trials:{self.function}\n"
                f"parameters: {{case: {list(range(self.cases))}{self.extra}}}\n"
                f"seeds: {self.seeds}\nlimits: {self.limits}\n"
                "show: {value: value, by: [case]}\n"
            )
        return path

    def start(
        self,
        *options: str,
        jobs: int | None = 2,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> "subprocess.Popen[str]":
        """Start the sweep, in a process group of its own."""
        workers = () if jobs is None else ("--jobs", str(jobs))
        where = ("--store", str(self.store), "--resume")
        return subprocess.Popen(
            [
                *prefix,
                sys.executable,
                "-m",
                "krratio",
                "sweep",
                str(self.grid),
                *where,
                *workers,
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )

    def run(
        self, *options: str, jobs: int | None = 2, prefix: Sequence[str] = ()
    ) -> tuple[int, str]:
        """Run the sweep; return its exit code and all that it said."""
        with everything_ends(self.start(*options, jobs=jobs, prefix=prefix)) as process:
            out, err = process.communicate(timeout=LIMIT)
            return process.returncode, out + err

    def command(self, name: str, *arguments: str) -> tuple[int, str]:
        """Run another command of the kit."""
        done = subprocess.run(
            [sys.executable, "-m", "krratio", name, *arguments],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def rows(self) -> list[tuple[int, str, dict[str, int], int, str | None, str | None]]:
        """Read the store without the kit: number, status, parameters, seed, result, error."""
        with closing(sqlite3.connect(self.store)) as connection:
            found = connection.execute(
                "SELECT number, status, parameters, seed, result, error "
                "FROM plan JOIN tasks USING (key) ORDER BY number"
            ).fetchall()
        return [(n, status, json.loads(p), *others) for n, status, p, *others in found]

    def found(self, failing: Callable[[int], bool] = lambda _case: False) -> Found:
        """Compare the store with what must be in it: every task once, with its own result.

        Tasks of the cases that are `failing` must be marked failed, with a reason.
        """
        rows = self.rows()
        wanted = {(case, seed) for case in range(self.cases) for seed in range(self.seeds)}
        seen = [(parameters["case"], seed) for _, _, parameters, seed, _, _ in rows]
        lost, wrong = len(wanted - set(seen)), 0
        for (case, seed), (_, status, _, _, result, error) in zip(seen, rows, strict=True):
            if failing(case):
                wrong += status != "failed" or not error
            elif status != "done" or result is None:
                lost += 1
            else:
                wrong += json.loads(result) != [{"value": drawn(case, seed)}]
        return Found(lost, len(seen) - len(set(seen)), wrong)

    def done(self) -> int:
        """Return how many tasks are done so far."""
        try:
            return sum(row[1] == "done" for row in self.rows())
        except sqlite3.Error:  # it is being made
            return 0

    def wait_for(self, count: int, process: "subprocess.Popen[str]") -> None:
        """Wait until some tasks are done, or the process has ended."""
        until = time.monotonic() + LIMIT
        while self.done() < count and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)


@contextmanager
def everything_ends(process: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    """End a process and what it has started, whatever happens in the block."""
    try:
        yield process
    finally:
        for one in (*_family(process.pid), process.pid):
            try:
                os.kill(one, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.communicate()


def _family(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
