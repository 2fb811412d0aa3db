"""Plain values: what parameters and results are made of, and the one text that says them."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["from_text", "number", "plain", "scalar", "text"]

LONGEST = 100_000
"""Characters that one value may have as text."""


def text(value: Any) -> str:
    """Return the one line of JSON for a value; floats come back from it bit by bit."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def from_text(line: str) -> Any:
    """Return the value that `text` wrote."""
    return json.loads(line)


def plain(value: Any, where: str) -> Any:
    """Return `value` in plain types: tuples as lists, numpy's and torch's scalars as Python's.

    Raises
    ------
    ValueError
        If it is anything else or not finite; the message starts with `where`.
    """
    if isinstance(value, Mapping):
        odd = [key for key in value if not isinstance(key, str)]
        if odd:
            raise ValueError(f"{where}: the key {odd[0]!r} is not text")
        return {key: plain(item, f"{where}, {key!r}") for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item, where) for item in value]
    found = scalar(value, where)
    if isinstance(found, float) and not math.isfinite(found):
        raise ValueError(f"{where} is {found!r}; give a finite number")
    return found


def scalar(value: Any, where: str) -> bool | int | float | str | None:
    """Return one plain scalar; NaN and infinity are allowed.

    Raises
    ------
    ValueError
        If it is none, or a text of more than 100,000 characters.
    """
    found = number(value)
    if isinstance(found, str) and len(found) > LONGEST:
        raise ValueError(f"{where} is a text of {len(found):,} characters; at most {LONGEST:,}")
    if found is None or isinstance(found, bool | int | float | str):
        return found
    raise ValueError(
        f"{where} is {value!r:.100}, {type(value).__name__}; give a number, a truth value, a text "
        "or None"
    )


def number(value: Any) -> Any:
    """Return the Python number in a scalar of numpy or torch; anything else as it is."""
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        return value.item()
    return value
