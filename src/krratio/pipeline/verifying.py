"""Compute a part of a record again, and compare it with what is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from krratio.errors import CorruptDataError
from krratio.pipeline.code import code_hash
from krratio.pipeline.layout import CLONE, Layout
from krratio.pipeline.records import note, records

__all__ = ["RELATIVE", "Comparison", "compare", "verify_record"]

RELATIVE = 1e-6
"""Tolerance of floating-point numbers, relative to the kept one. All else must be equal."""

ABSOLUTE = 1e-9
"""What differs by less is rounding, however small both are: residuals, gradients at an optimum."""


@dataclass(frozen=True)
class Comparison:
    """How rows that were computed again differ from those that are kept.

    Attributes
    ----------
    rows
        How many were compared.
    largest
        The largest relative difference of two numbers beyond rounding; 0 if there is none.
    unlike
        ``row, column: kept / again`` of every value that is beyond the tolerance.
    """

    rows: int
    largest: float
    unlike: tuple[str, ...]

    def said(self) -> str:
        """Return what was found, in a line and one for every value that is unlike."""
        if self.unlike:
            first = f"{len(self.unlike)} values of {self.rows} rows differ (kept / again):"
            return "\n".join([first, *self.unlike])
        return f"{self.rows} rows are as kept; largest relative difference {self.largest:.2g}"


def compare(
    kept: pd.DataFrame, again: pd.DataFrame, *, key: Sequence[str], apart: Sequence[str] = ()
) -> Comparison:
    """Compare the rows of `again` with the kept ones of the same key.

    Parameters
    ----------
    kept, again
        Tables of the same columns.
    key
        Columns that name a row.
    apart
        Columns that are not compared: seconds.

    Raises
    ------
    ValueError
        If the columns differ, nothing was computed again, a key is there twice or a row of `again`
        is not kept.
    """
    if list(kept) != list(again):
        raise ValueError(f"computed again are columns {list(again)}, kept {list(kept)}")
    old, new = kept.set_index(list(key)), again.set_index(list(key))
    if not len(new) or not old.index.is_unique or not new.index.is_unique:
        raise ValueError(f"{list(key)} do not name each of {len(new)} rows once")
    lost = new.index.difference(old.index)
    if len(lost):
        raise ValueError(f"rows {lost.tolist()} were computed again, but are not kept")
    old = old.loc[new.index]
    largest, unlike = 0.0, []
    for column in old.columns.difference([*apart], sort=False):
        apart_by = _differences(old[column], new[column])
        largest = max(largest, float(np.max(apart_by[np.isfinite(apart_by)], initial=0)))
        for row in np.flatnonzero(apart_by > RELATIVE).tolist():
            values = f"{old[column].iloc[row]} / {new[column].iloc[row]}"
            unlike.append(f"{new.index[row]}, {column}: {values}")
    return Comparison(len(new), largest, tuple(unlike))


def _differences(old: pd.Series, new: pd.Series) -> np.ndarray:
    """Relative differences; 0 within rounding, infinite for what is no number and not the same."""
    same = ((old == new) | (old.isna() & new.isna())).to_numpy(bool)
    both, kind = (old, new), pd.api.types
    are_numbers = all(map(kind.is_numeric_dtype, both)) and any(map(kind.is_float_dtype, both))
    if not are_numbers:  # texts or integers
        return np.where(same, 0, np.inf)
    a, b = old.to_numpy(float), new.to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(same | (np.abs(a - b) < ABSOLUTE), 0, np.abs(a - b) / np.abs(a))
    return np.where(np.isnan(relative), np.inf, relative)


def verify_record(
    name: str,
    table: str,
    again: pd.DataFrame,
    *,
    key: Sequence[str],
    apart: Sequence[str] = (),
    layout: Layout = CLONE,
) -> Comparison:
    """Compare a part of a table with what was computed again, and write it down where it holds.

    Parameters
    ----------
    name, table
        The record, and which of its files.
    again, key, apart
        As of :func:`compare`; floats as a CSV file holds them.
    layout
        Whose ``data/results``.

    Returns
    -------
    Comparison
        Nothing is written down unless ``unlike`` is empty.

    Raises
    ------
    CorruptDataError
        If the table is not the one that was sealed.
    ValueError
        As of :func:`compare`.
    """
    state = {record.table: record.state for record in records(layout)}.get(table, "missing")
    if state != "whole":
        raise CorruptDataError(f"data/results/{table} is {state}: there is nothing to verify")
    kept = pd.read_csv(layout.data / "results" / table)
    found = compare(kept, again, key=key, apart=apart)
    if not found.unlike:
        facts = {
            "date": datetime.now(UTC).date().isoformat(),
            "code": code_hash(layout),
            "rows": found.rows,
            "apart": list(apart),
            "largest": found.largest,
            "tolerance": RELATIVE,
        }
        note(name, table, facts, layout)
    return found
