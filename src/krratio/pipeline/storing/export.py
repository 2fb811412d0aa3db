"""A store as a file for git, with what is known of it beside it, and back."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from krratio.errors import CorruptDataError, StoreError
from krratio.pipeline.store import Store
from krratio.pipeline.storing.files import read_table, write_table
from krratio.pipeline.storing.row import Row
from krratio.pipeline.storing.table import rows_of_table, table_of
from krratio.pipeline.sweeping.task import Task
from krratio.writing import write_text

__all__ = ["beside", "export", "restore"]

FORMAT = 1


def beside(path: Path) -> Path:
    """Return the file that says what the columns of an export are and where they come from."""
    return path.with_suffix(".json")


def export(store: Store, path: Path, *, partial: bool = False, times: bool = False) -> None:
    """Write what the tasks of the plan returned, in the order of the grid.

    The same results give the same bytes, whenever and in whatever order they were computed.

    Parameters
    ----------
    path
        ``.csv`` or ``.parquet``; what is known of it goes into a ``.json`` beside it.
    partial
        Also if tasks are pending or failed; they are listed in the ``.json``.
    times
        Also attempts, seconds and times, which differ from run to run.

    Raises
    ------
    StoreError
        If tasks are pending or failed and `partial` is not set, or if there is no plan.
    OSError
        If it cannot be written.
    """
    facts = store.facts()
    if "sweep" not in facts:
        raise StoreError(f"{store.path} holds no sweep; there is nothing to export")
    rows = list(store.rows())
    unfinished = [row for row in rows if row.status != "done"]
    if unfinished and not partial:
        counts = store.counts()
        raise StoreError(
            f"{store.path}: {counts['pending']} tasks are pending and {counts['failed']} failed; "
            "finish them by krratio sweep --resume and krratio retry, or export --partial"
        )
    done = [row for row in rows if row.status == "done"]
    table = table_of(done, facts["names"], times=times)
    write_table(path, table)
    known = {
        "format": FORMAT,
        "sweep": facts["sweep"],
        "names": facts["names"],
        "show": facts["show"],
        "function": rows[0].task.function if rows else "",
        "code": rows[0].task.code if rows else "",
        "kinds": dict(table.kinds),
        "sha256": _sha256(path),
        "tasks": len(rows),
        "unfinished": [_short(row) for row in unfinished],
        "silent": [_short(row) for row in done if not row.rows],
        "made_on": _different(row.where for row in done),
        "verified": facts.get("verified"),
    }
    write_text(beside(path), json.dumps(known, indent=1, ensure_ascii=False) + "\n")


def restore(path: Path, store: Store) -> int:
    """Read an export into an empty store; return how many tasks it has.

    Raises
    ------
    CorruptDataError
        If the file is not the one that was exported.
    StoreError
        If the store holds results.
    """
    known = _known(path)
    if _sha256(path) != known["sha256"]:
        raise CorruptDataError(
            f"{path} is not the file that {beside(path).name} records: another SHA-256; restore it"
        )
    function, code = known["function"], known["code"]
    rows = rows_of_table(read_table(path, known["kinds"]), known["names"], function, code)
    for number, parameters, seed, status, error in (*known["silent"], *known["unfinished"]):
        task = Task(number, function, code, parameters, seed)
        returned = () if status == "done" else None
        rows.append(Row(task, status, 0 if status == "pending" else 1, returned, error))
    rows.sort(key=lambda row: row.task.number)
    facts = {key: known[key] for key in ("names", "show", "verified")}
    store.restore(known["sweep"], rows, folder=None, **facts)
    return len(rows)


def _known(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(beside(path).read_text(encoding="utf-8"))
        if found["format"] == FORMAT:
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise CorruptDataError(
        f"{beside(path)} is missing, damaged or of another version; it belongs to {path.name}"
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _short(row: Row) -> list[Any]:
    task = row.task
    return [task.number, dict(task.parameters), task.seed, row.status, row.error]


def _different(places: Any) -> list[dict[str, Any]]:
    """Return the processors and versions that made the rows, each once."""
    found: Sequence[str] = sorted(
        {
            json.dumps({key: place[key] for key in ("processor", "versions")}, sort_keys=True)
            for place in places
            if place
        }
    )
    return [json.loads(line) for line in found]
