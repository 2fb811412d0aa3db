"""Faults while notebooks run and figures are made."""

import os
import signal
import time
from pathlib import Path

import psutil
from numpy.random import Generator

from faults import Fault, Inject, Outcome
from faults.clones import LIMIT, Found, committed, fresh, reproduce, start, undisturbed
from krratio.pipeline.layout import Layout

__all__ = ["FAULTS"]


class _Tally:
    """What was lost, doubled and wrong, over all injections."""

    def __init__(self) -> None:
        self.lost = self.doubled = self.wrong = 0

    def add(self, found: Found) -> None:
        """Count the files of one comparison."""
        self.lost += len(found.lost)
        self.doubled += len(found.doubled)
        self.wrong += len(found.wrong)

    def outcome(self, injected: int, said: str) -> Outcome:
        """Return the sum."""
        return Outcome(injected, self.lost, self.doubled, self.wrong, said)


def ending(number: signal.Signals) -> Inject:
    """Send a signal to the run at a random moment; no unit may be half taken over; run again."""

    def inject(folder: Path, times: int, generator: Generator) -> Outcome:
        peace, tally = undisturbed(), _Tally()
        for turn in range(times):
            layout = fresh(folder / str(turn))
            before = committed(layout)
            process = start(layout, "reproduce")
            time.sleep(generator.uniform(0.0, peace.seconds))
            os.kill(process.pid, number)
            process.communicate(timeout=LIMIT)
            if number != signal.SIGKILL:  # told to end, it leaves each unit old or new
                tally.add(Found.of(committed(layout), before, peace.after))
            reproduce(layout)
            tally.add(Found.of(committed(layout), peace.after))
        return tally.outcome(times, "the next run made what was missing")

    return inject


def kill_kernel(folder: Path, times: int, generator: Generator) -> Outcome:
    """SIGKILL a kernel at a random moment: its notebook stays as it was, the others are made."""
    peace, tally, killed = undisturbed(), _Tally(), 0
    for turn in range(times):
        layout = fresh(folder / str(turn))
        before = committed(layout)
        process = start(layout, "reproduce")
        killed += _kill_a_kernel(process.pid, generator)
        process.communicate(timeout=LIMIT)
        tally.add(Found.of(committed(layout), before, peace.after))
        reproduce(layout)
        tally.add(Found.of(committed(layout), peace.after))
    return tally.outcome(killed, "its notebook stayed as it was, the others were made")


def _kill_a_kernel(pid: int, generator: Generator) -> int:
    until = time.monotonic() + LIMIT
    while time.monotonic() < until and psutil.pid_exists(pid):
        try:
            family = psutil.Process(pid).children(recursive=True)
            kernels = [p for p in family if "ipykernel" in " ".join(p.cmdline())]
            if kernels:
                time.sleep(generator.uniform(0.0, 1.0))
                kernels[int(generator.integers(len(kernels)))].kill()
                return 1
        except psutil.Error:
            return 0
        time.sleep(0.02)
    return 0


def two_at_once(folder: Path, times: int, _generator: Generator) -> Outcome:
    """Start a second run in the same clone: it is refused, and the first one is not disturbed."""
    peace, tally = undisturbed(), _Tally()
    for turn in range(times):
        layout = fresh(folder / str(turn))
        first = start(layout, "reproduce")
        _until_locked(layout)
        code, said = reproduce(layout)
        is_told = f"in use by process {first.pid}" in said and "Traceback" not in said
        tally.wrong += code != 1 or not is_told
        first.communicate(timeout=LIMIT)
        tally.add(Found.of(committed(layout), peace.after))
    return tally.outcome(times, "the second was refused, naming the process; the first went on")


def _until_locked(layout: Layout) -> None:
    until = time.monotonic() + LIMIT
    while not (layout.runs / "lock.holder").exists() and time.monotonic() < until:
        time.sleep(0.02)


HUNGRY = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (3_000_000_000,) * 2)
hoard = []
while True:
    hoard.append(bytearray(50_000_000))
"""


def out_of_memory(folder: Path, times: int, _generator: Generator) -> Outcome:
    """Let a notebook take memory until there is none."""
    peace, tally = undisturbed(), _Tally()
    for turn in range(times):
        layout = fresh(folder / str(turn), [HUNGRY])
        code, said = reproduce(layout)
        tally.wrong += code != 1 or "04_bad: cell [" not in said or "MemoryError" not in said
        good = {name: digest for name, digest in committed(layout).items() if "bad" not in name}
        wanted = {n: d for n, d in peace.after.items() if not n.endswith("figures.yaml")}
        good.pop("notebooks/figures.yaml", None)
        tally.add(Found.of(good, wanted))
    return tally.outcome(times, "exit code 1, naming the cell; the other notebooks were made")


FAULTS = (
    Fault(
        "kill-reproduce",
        "`krratio reproduce`",
        "SIGKILL at a random moment; then run again",
        ending(signal.SIGKILL),
        1,
        12,
    ),
    Fault(
        "end-reproduce",
        "`krratio reproduce`",
        "SIGTERM at a random moment; then run again",
        ending(signal.SIGTERM),
        1,
        8,
    ),
    Fault("kill-kernel", "a kernel", "SIGKILL at a random moment", kill_kernel, 1, 8),
    Fault("two-reproductions-at-once", "a clone", "a second run", two_at_once, 1, 4),
    Fault(
        "notebook-out-of-memory",
        "a notebook",
        "takes memory without end",
        out_of_memory,
        1,
        3,
    ),
)
