"""Tables as files: CSV, or Parquet, the same bytes for the same rows."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from krratio.errors import CorruptDataError, MissingExtraError, ParameterError
from krratio.pipeline.storing.kinds import Kind, cell, value
from krratio.pipeline.storing.table import Table
from krratio.writing import write_text, write_whole

__all__ = ["read_table", "write_table"]

SUFFIXES = (".csv", ".parquet")


def write_table(path: Path, table: Table) -> None:
    """Write a table, whole or not at all.

    Raises
    ------
    ParameterError
        If the name does not end in .csv or .parquet.
    MissingExtraError
        If pyarrow is needed and not installed.
    OSError
        If it cannot be written.
    """
    _check_suffix(path)
    if path.suffix == ".csv":
        write_text(path, _to_csv(table))
    else:
        parquet, arrow = _pyarrow()
        columns = {name: _array(arrow, table, name) for name in table.columns}
        write_whole(path, lambda to: parquet.write_table(arrow.table(columns), to))


def read_table(path: Path, kinds: Mapping[str, Kind]) -> Table:
    """Return the table that `write_table` wrote.

    Raises
    ------
    CorruptDataError
        If its columns are not those of `kinds`.
    """
    _check_suffix(path)
    columns = _from_csv(path) if path.suffix == ".csv" else _from_parquet(path)
    if list(columns) != list(kinds):
        raise CorruptDataError(
            f"{path} has the columns {list(columns)}; recorded are {list(kinds)}"
        )
    if path.suffix == ".csv":
        columns = {name: [value(c, kinds[name]) for c in cells] for name, cells in columns.items()}
    else:
        for name in (name for name, kind in kinds.items() if kind == "json"):
            columns[name] = [None if c is None else value(c, "json") for c in columns[name]]
    return Table(columns, dict(kinds))


def _to_csv(table: Table) -> str:
    to = io.StringIO()
    writer = csv.writer(to, lineterminator="\n")
    writer.writerow(table.columns)
    kinds = list(table.kinds.values())
    for line in table.lines():
        writer.writerow(cell(item, kind) for item, kind in zip(line, kinds, strict=True))
    return to.getvalue()


def _from_csv(path: Path) -> dict[str, list[Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file)) or [[]]
    cells = zip(*lines[1:], strict=True) if lines[1:] else ((),) * len(lines[0])
    return dict(zip(lines[0], map(list, cells), strict=True))


def _from_parquet(path: Path) -> dict[str, list[Any]]:
    parquet, _ = _pyarrow()
    found: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
    return found


def _array(arrow: Any, table: Table, name: str) -> Any:
    kind = table.kinds[name]
    types = {"int": arrow.int64(), "float": arrow.float64(), "bool": arrow.bool_()}
    values = table.columns[name]
    if kind == "json":
        values = [None if item is None else cell(item, kind) for item in values]
    return arrow.array(values, type=types.get(kind, arrow.string()))


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise ParameterError(f"{path}: give a file that ends in {' or '.join(SUFFIXES)}")


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError(
            "Parquet needs pyarrow; install the extra: pip install 'krratio[parquet]', or give .csv"
        ) from None
    return parquet, pyarrow
