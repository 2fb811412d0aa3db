"""One row of a store: a task, and what is known of it, under a checksum."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from krratio.errors import StoreError
from krratio.pipeline.sweeping.plain import from_text, text
from krratio.pipeline.sweeping.task import Outcome, Status, Task

__all__ = ["COLUMNS", "Row", "damaged"]

COLUMNS = (
    "key",
    "function",
    "code",
    "parameters",
    "seed",
    "status",
    "attempts",
    "result",
    "error",
    "provenance",
    "seconds",
    "finished",
)
"""Everything but the checksum, which is of these."""


@dataclass(frozen=True)
class Row:
    """A task with its state.

    Attributes
    ----------
    task : Task
    status : {"pending", "done", "failed"}
    attempts : int
        Processes that began it, over all runs.
    rows : tuple of mappings or None
        The result of a task that is done.
    error : str or None
        Why it failed.
    where : mapping or None
        Machine, process and versions that ran it.
    seconds : float or None
        Of the last attempt.
    finished : str or None
        Wall-clock time in UTC.
    """

    task: Task
    status: Status = "pending"
    attempts: int = 0
    rows: tuple[Mapping[str, Any], ...] | None = None
    error: str | None = None
    where: Mapping[str, Any] | None = None
    seconds: float | None = None
    finished: str | None = None

    def after(self, outcome: Outcome) -> "Row":
        """Return the row once `outcome` is known."""
        return Row(
            self.task,
            outcome.status,
            self.attempts + outcome.attempts,
            outcome.rows,
            outcome.error,
            outcome.where,
            outcome.seconds,
            outcome.finished,
        )

    def waiting(self) -> "Row":
        """Return the row when the task is to be run again."""
        return Row(self.task, attempts=self.attempts)

    def values(self) -> tuple[Any, ...]:
        """Return what is written: `COLUMNS` and the checksum."""
        found = (
            self.task.key,
            self.task.function,
            self.task.code,
            text(dict(self.task.parameters)),
            self.task.seed,
            self.status,
            self.attempts,
            None if self.rows is None else text(list(self.rows)),
            self.error,
            None if self.where is None else text(self.where),
            self.seconds,
            self.finished,
        )
        return (*found, _checksum(found))

    @classmethod
    def read(cls, number: int, values: tuple[Any, ...], path: Path) -> "Row":
        """Return what `values` wrote.

        Raises
        ------
        StoreError
            If the values are not those that were written.
        """
        *found, checksum = values
        if _checksum(tuple(found)) != checksum:
            raise damaged(path, f"the row of task {found[0]!r} is not what was written")
        key, function, code, parameters, seed, status, attempts, result, error, where, *times = (
            found
        )
        task = Task(number, function, code, from_text(parameters), seed)
        assert task.key == key
        return cls(
            task,
            status,
            attempts,
            None if result is None else tuple(from_text(result)),
            error,
            None if where is None else from_text(where),
            *times,
        )


def damaged(path: Path, what: str) -> StoreError:
    """Return the error for a file that does not hold what was written."""
    return StoreError(
        f"{path} is damaged ({what}); move the file away, then restore an export of it with "
        "krratio import, or run the sweep again"
    )


def _checksum(values: tuple[Any, ...]) -> str:
    """Return the SHA-256 of values; of bytes, which no row holds, their text in Python."""
    return hashlib.sha256(
        text([repr(v) if isinstance(v, bytes) else v for v in values]).encode()
    ).hexdigest()
