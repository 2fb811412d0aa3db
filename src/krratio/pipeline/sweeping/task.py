"""One task of a sweep, and what came out of it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from krratio.pipeline.sweeping.plain import text

__all__ = ["Limits", "Outcome", "Status", "Task"]

Status = Literal["pending", "done", "failed"]


@dataclass(frozen=True)
class Limits:
    """What one task may use; None is no limit.

    Attributes
    ----------
    seconds : float or None
        Wall-clock time.
    memory_mb : float or None
        Resident memory of its process and of what that started, in 10⁶ bytes.
    """

    seconds: float | None = None
    memory_mb: float | None = None


@dataclass(frozen=True)
class Task:
    """One call of a function.

    Attributes
    ----------
    number : int
        Its place in the grid; not part of what it is.
    function : str
        ``module:name``.
    code : str
        Hash of the code that the result can depend on.
    parameters : mapping
        Keyword arguments, plain values.
    seed : int or None
        One more keyword argument, ``seed``, unless None.
    """

    number: int
    function: str
    code: str
    parameters: Mapping[str, Any]
    seed: int | None

    @cached_property
    def key(self) -> str:
        """What the task is, as 40 hexadecimal digits: function, code, parameters and seed."""
        parameters = sorted(self.parameters.items())
        whole = text([self.function, self.code, parameters, self.seed])
        return hashlib.sha256(whole.encode()).hexdigest()[:40]

    def __str__(self) -> str:
        seed = {} if self.seed is None else {"seed": self.seed}
        values = ", ".join(f"{k}={v!r}" for k, v in {**self.parameters, **seed}.items())
        return f"task {self.number} ({values})"


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes
    ----------
    key : str
        Of the task.
    rows : tuple of mappings or None
        What it returned, as rows of named scalars; None if it failed.
    error : str or None
        Why it failed; None if it did not.
    attempts : int
        Processes that began it.
    seconds : float
        Of the last attempt, by a clock that cannot be set.
    finished : str
        Wall-clock time in UTC when it ended, for the reader: nothing is derived from it.
    where : mapping
        Machine and process that ran it.
    """

    key: str
    rows: tuple[Mapping[str, Any], ...] | None
    error: str | None
    attempts: int
    seconds: float
    finished: str
    where: Mapping[str, Any]

    @property
    def status(self) -> Status:
        """``done`` or ``failed``."""
        return "done" if self.error is None else "failed"
