"""How far a sweep is: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from tqdm import tqdm

from krratio.pipeline.sweeping.summary import Summary
from krratio.pipeline.sweeping.task import Outcome, Task

__all__ = ["EVERY", "SweepProgress", "duration"]

EVERY = 30.0
"""Seconds between two tables."""


class SweepProgress:
    """Tells stderr what has ended, at what rate, and when the rest will have.

    Parameters
    ----------
    total, done
        Tasks of the plan, and those that are finished already.
    summary
        What the table shows; None for no table.
    every
        Seconds between two tables.
    """

    def __init__(
        self, total: int, done: int, summary: Summary | None, every: float = EVERY
    ) -> None:
        self.summary = summary
        self._total, self._ended, self._new, self._failed = total, done, 0, 0
        self._began = self._said = time.monotonic()
        self._every = every
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="task",
            file=sys.stderr,
            disable=None,
            leave=False,
            ncols=80,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def add(self, ended: Iterable[tuple[Task, Outcome]]) -> None:
        """Count what has been stored."""
        for task, outcome in ended:
            self._new += 1
            self._bar.update()
            if outcome.error is None:
                if self.summary is not None:
                    self.summary.add(task, outcome.rows)
            else:
                self._failed += 1
                self.say(f"failed: {task}: {outcome.error}")

    def tick(self) -> None:
        """Say how far it is, if it is time to."""
        if time.monotonic() - self._said >= self._every:
            self._said = time.monotonic()
            if self._bar.disable:
                self.say(self._line())
            if self.summary is not None and self.summary.groups:
                self.say(self.summary.table())

    def say(self, line: str) -> None:
        """Print a line beside the bar."""
        tqdm.write(line, file=sys.stderr)

    def _line(self) -> str:
        rate = self._new / (time.monotonic() - self._began)
        left = self._total - self._ended - self._new
        eta = f"{duration(left / rate)} left" if rate else "no end in sight"
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._ended + self._new} of {self._total}{failed}, {rate:.3g} tasks/s, {eta}"


def duration(seconds: float) -> str:
    """Return seconds as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
