"""Faults while notebooks run and figures are made."""

import os
import signal
import time
from pathlib import Path

from numpy.random import Generator

from faults import Fault, Outcome
from faults.clones import LIMIT, Found, committed, fresh, reproduce, start, undisturbed

__all__ = ["FAULTS"]


def kill_command(folder: Path, times: int, generator: Generator) -> Outcome:
    """SIGKILL the whole run at a random moment; run again."""
    peace = undisturbed()
    lost = doubled = wrong = 0
    for number in range(times):
        layout = fresh(folder / str(number))
        process = start(layout, "reproduce")
        time.sleep(generator.uniform(0.0, peace.seconds))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=LIMIT)
        reproduce(layout)
        found = Found.of(committed(layout), peace.after)
        lost, doubled = lost + len(found.lost), doubled + len(found.doubled)
        wrong += len(found.wrong)
    return Outcome(times, lost, doubled, wrong, "the next run made what was missing")


FAULTS = (
    Fault(
        "kill-reproduce",
        "`krratio reproduce`",
        "SIGKILL at a random moment; then run again",
        kill_command,
        quick=1,
        thorough=20,
    ),
)
