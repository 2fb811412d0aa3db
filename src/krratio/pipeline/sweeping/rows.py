"""What a function returned, as rows of named scalars."""

from collections.abc import Mapping
from typing import Any

from krratio.pipeline.sweeping.plain import scalar

__all__ = ["RESERVED", "ResultError", "rows_of"]

RULE = "a task returns one row, a mapping of names to scalars, or a list of rows"

RESERVED = ("task", "seed", "attempts", "seconds", "finished")
"""Names of columns that a table has for itself."""


class ResultError(ValueError):
    """A function of a sweep returned what no row can hold."""


def rows_of(result: Any, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a result, in plain types, without what is None and without arguments.

    Parameters
    ----------
    result
        What the function returned.
    given
        What it was called with; a row may repeat it, but not say otherwise.

    Raises
    ------
    ResultError
        If it is no row and no list of rows, or if a row holds anything but scalars, an argument
        with another value, or a reserved name.
    """
    rows = [result] if isinstance(result, Mapping) else result
    if not isinstance(rows, list | tuple):
        raise ResultError(f"it returned {result!r:.100}, {type(result).__name__}; {RULE}")
    return [_row(row, given) for row in rows]


def _row(row: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(row, Mapping) or not all(isinstance(key, str) and key for key in row):
        raise ResultError(f"it returned the row {row!r:.100}; {RULE}")
    for name in RESERVED:
        if name in row and name not in given:
            raise ResultError(f"it returned {name!r}, which is the name of a column of every table")
    try:
        found = {key: scalar(value, f"{key!r}") for key, value in row.items()}
    except ValueError as error:
        raise ResultError(f"it returned a row in which {error}") from None
    for name in found.keys() & given.keys():
        if found[name] != given[name]:
            raise ResultError(
                f"it returned {name}={found[name]!r}, but was given {name}={given[name]!r}; "
                "return it under another name"
            )
    return {key: value for key, value in found.items() if value is not None and key not in given}
