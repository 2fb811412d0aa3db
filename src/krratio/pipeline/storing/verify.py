"""A store held against a fresh computation of some of its tasks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from krratio.errors import StoreError
from krratio.pipeline.store import Store
from krratio.pipeline.storing.row import Row
from krratio.pipeline.sweeping.function import code_of
from krratio.pipeline.sweeping.sandbox import Sandbox
from krratio.pipeline.sweeping.task import Limits

__all__ = ["Verification", "verify"]


@dataclass(frozen=True)
class Verification:
    """What came out of computing tasks again.

    Attributes
    ----------
    compared : int
        Tasks.
    differing : tuple of str
        One line for each that came out otherwise.
    same_code : bool
        Whether the code is still the one that made the store.
    largest_difference : float
        Of two numbers, relative to the larger one.
    """

    compared: int
    differing: tuple[str, ...]
    same_code: bool
    largest_difference: float


def verify(
    store: Store, folder: Path | None, *, sample: int, seed: int, tolerance: float = 0.0
) -> Verification:
    """Compute a random sample of the finished tasks again, by the code as it is now.

    Parameters
    ----------
    folder
        Where the module of the function lies, if it is not installed.
    sample
        Tasks to compute; all if there are fewer.
    seed
        Of the sample.
    tolerance
        Relative difference up to which numbers count as equal; 0 asks for every bit.

    Raises
    ------
    StoreError
        If nothing is done yet.
    GridError
        If the function is not found.
    """
    rows = list(store.rows("done"))
    if not rows:
        raise StoreError(f"{store.path}: no task is done, so that there is nothing to verify")
    chosen = Random(seed).sample(rows, min(sample, len(rows)))
    code = code_of(rows[0].task.function, folder)
    differing: list[str] = []
    largest = 0.0
    with TemporaryDirectory() as scratch:
        sandbox = Sandbox()
        try:
            for row in chosen:
                answer = sandbox.run(_request(row, code, folder, Path(scratch)), Limits())
                difference = _difference(row, answer)
                largest = max(largest, difference)
                if not difference <= tolerance:
                    differing.append(f"{row.task}: {_told(row, answer)}")
        finally:
            sandbox.close()
    found = Verification(len(chosen), tuple(differing), code == rows[0].task.code, largest)
    _note(store, found, code, tolerance)
    return found


def _request(row: Row, code: str, folder: Path | None, scratch: Path) -> dict[str, Any]:
    task = replace(row.task, code=code)
    return {
        "function": task.function,
        "folder": None if folder is None else str(folder),
        "code": code,
        "parameters": task.parameters,
        "seed": task.seed,
        "checkpoint": str(scratch / f"{task.key}.pt"),
    }


def _difference(row: Row, answer: Mapping[str, Any]) -> float:
    """Return the largest relative difference; infinity where anything but a number differs."""
    old, new = row.rows, answer.get("rows")
    if new is None or old is None or len(new) != len(old):
        return math.inf
    pairs = zip(old, new, strict=True)
    if any(before.keys() != after.keys() for before, after in pairs):
        return math.inf
    return max(
        (
            _apart(before[name], after[name])
            for before, after in zip(old, new, strict=True)
            for name in before
        ),
        default=0.0,
    )


def _apart(old: Any, new: Any) -> float:
    if old == new or (old != old and new != new):  # NaN equals itself here
        return 0.0
    if isinstance(old, float) and isinstance(new, float) and math.isfinite(old - new):
        return abs(old - new) / max(abs(old), abs(new))
    return math.inf


def _told(row: Row, answer: Mapping[str, Any]) -> str:
    now = answer.get("rows", answer.get("error"))
    return f"stored {list(row.rows or ())!r:.200}, now {now!r:.200}"


def _note(store: Store, found: Verification, code: str, tolerance: float) -> None:
    store.note(
        verified={
            "date": datetime.now(UTC).date().isoformat(),
            "code": code,
            "tasks": found.compared,
            "differing": len(found.differing),
            "largest_difference": found.largest_difference,
            "tolerance": tolerance,
        }
    )
