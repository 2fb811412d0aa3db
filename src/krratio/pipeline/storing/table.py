"""The rows of a store as one table, and back."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from krratio.pipeline.storing.kinds import Kind, kind_of
from krratio.pipeline.storing.row import Row
from krratio.pipeline.sweeping.task import Task

__all__ = ["TASK", "TIMES", "Table", "rows_of_table", "table_of"]

TASK = "task"
"""The first column: the number of the task. A task that returned several rows has several."""

TIMES = ("attempts", "seconds", "finished")
"""Columns that differ from run to run; only in an export that asks for them."""


@dataclass(frozen=True)
class Table:
    """Columns by name, of equal lengths; each has a kind."""

    columns: Mapping[str, Sequence[Any]]
    kinds: Mapping[str, Kind]

    def lines(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows."""
        return zip(*self.columns.values(), strict=True)


def table_of(rows: Iterable[Row], names: Sequence[str], *, times: bool = False) -> Table:
    """Return the results of tasks: number, parameters, what they returned, in their order."""
    lines = [line for row in rows for line in _lines(row, names, times)]
    first = (TASK, *names, *(TIMES if times else ()))
    columns = dict.fromkeys([*first, *(name for line in lines for name in line)])
    values = {name: [line.get(name) for line in lines] for name in columns}
    return Table(values, {name: kind_of(column) for name, column in values.items()})


def _lines(row: Row, names: Sequence[str], times: bool) -> Iterator[dict[str, Any]]:
    given = {**row.task.parameters, "seed": row.task.seed}
    fixed = {TASK: row.task.number, **{name: given[name] for name in names}}
    if times:
        fixed |= {name: getattr(row, name) for name in TIMES}
    for result in row.rows or ():
        yield {**fixed, **result}


def rows_of_table(table: Table, names: Sequence[str], function: str, code: str) -> list[Row]:
    """Return the rows that `table_of` wrote."""
    groups: dict[int, list[dict[str, Any]]] = {}
    for line in table.lines():
        found = dict(zip(table.columns, line, strict=True))
        groups.setdefault(found[TASK], []).append(found)
    return [_row(lines, names, function, code) for lines in groups.values()]


def _row(lines: list[dict[str, Any]], names: Sequence[str], function: str, code: str) -> Row:
    first = lines[0]
    parameters = {name: first[name] for name in names if name != "seed"}
    task = Task(first[TASK], function, code, parameters, first.get("seed"))
    fixed = (TASK, *names, *TIMES)
    returned = tuple(
        {name: value for name, value in line.items() if name not in fixed and value is not None}
        for line in lines
    )
    return Row(
        task,
        "done",
        first.get("attempts") or 1,
        returned,
        seconds=first.get("seconds"),
        finished=first.get("finished"),
    )
