"""What a function returned, as rows of named scalars."""

from collections.abc import Mapping
from typing import Any

from krratio.pipeline.sweeping.plain import scalar

__all__ = ["ResultError", "rows_of"]

RULE = "a task returns one row, a mapping of names to scalars, or a list of rows"


class ResultError(ValueError):
    """A function of a sweep returned what no row can hold."""


def rows_of(result: Any) -> list[dict[str, Any]]:
    """Return the rows of a result, in plain types.

    Raises
    ------
    ResultError
        If it is no row and no list of rows, or if a row holds anything but scalars.
    """
    rows = [result] if isinstance(result, Mapping) else result
    if not isinstance(rows, list | tuple):
        raise ResultError(f"it returned {result!r:.100}, {type(result).__name__}; {RULE}")
    return [_row(row) for row in rows]


def _row(row: Any) -> dict[str, Any]:
    if not isinstance(row, Mapping) or not all(isinstance(key, str) and key for key in row):
        raise ResultError(f"it returned the row {row!r:.100}; {RULE}")
    try:
        return {key: scalar(value, f"{key!r}") for key, value in row.items()}
    except ValueError as error:
        raise ResultError(f"it returned a row in which {error}") from None
