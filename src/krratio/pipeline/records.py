"""Records: results that are kept in git, whatever becomes of the code that made them.

Each ``data/results/NAME.json`` says where its tables come from; its entry ``record`` vouches for
them: their SHA-256, the hash of the code that made them, and when a part was last computed again
(:mod:`krratio.pipeline.verifying`).
"""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from krratio.errors import CorruptDataError
from krratio.pipeline.code import code_hash
from krratio.pipeline.layout import CLONE, Layout
from krratio.writing import write_text

__all__ = ["Record", "note", "records", "seal"]


State = Literal["whole", "changed", "missing", "not sealed"]


@dataclass(frozen=True)
class Record:
    """One table of a record.

    Attributes
    ----------
    table : str
        The file's name.
    rows : int or None
        None if the file is missing.
    state : str
        ``"whole"``: it is the file that was sealed; else what is wrong with it.
    code : str or None
        Hash of the code that made it; None if nobody sealed it.
    verified : mapping or None
        Date, code, rows, columns left apart, largest difference and tolerance of the last time it
        was computed again.
    """

    table: str
    rows: int | None
    state: State
    code: str | None
    verified: Mapping[str, Any] | None


def seal(
    name: str,
    facts: Mapping[str, Any],
    tables: Sequence[str],
    layout: Layout = CLONE,
    *,
    code: str | None = None,
) -> None:
    """Write where tables come from, and vouch for them as they are now.

    Tables that are sealed already and are the same keep the code that made them, and when they were
    last computed again.

    Parameters
    ----------
    name
        Of the record: ``NAME.json``.
    facts
        Hardware, versions, settings.
    tables
        Its CSV files, by name.
    code
        Hash of the code that made them; that of the code as it is now by default.

    Raises
    ------
    CorruptDataError
        If ``NAME.json`` is there and damaged.
    """
    path = _path(name, layout)
    digests = {table: _sha256(_folder(layout) / table) for table in tables}
    block = _block(path) if path.exists() else {}
    if block.get("sha256") != digests:
        block = {"sha256": digests, "code": code or code_hash(layout), "verified": {}}
    _write(path, {**facts, "record": block})


def note(name: str, table: str, verified: Mapping[str, Any], layout: Layout = CLONE) -> None:
    """Write down that a part of a sealed table was computed again; see `Record`."""
    path = _path(name, layout)
    block = _block(path)
    block["verified"] = {**block["verified"], table: dict(verified)}
    _write(path, {**json.loads(path.read_text(encoding="utf-8")), "record": block})


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def records(layout: Layout = CLONE) -> list[Record]:
    """Return all tables in data/results, and those that are missing there.

    Raises
    ------
    CorruptDataError
        If a ``.json`` there is damaged.
    """
    sealed: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for path in sorted(_folder(layout).glob("*.json")):
        block = _block(path)
        sealed |= {table: (digest, block) for table, digest in block.get("sha256", {}).items()}
    present = {path.name for path in _folder(layout).glob("*.csv")}
    return [
        _record(_folder(layout) / table, sealed.get(table))
        for table in sorted(sealed.keys() | present)
    ]


def _record(path: Path, seal: tuple[str, Mapping[str, Any]] | None) -> Record:
    rows = None
    if path.exists():
        with path.open(encoding="utf-8", newline="", errors="replace") as file:
            rows = max(0, sum(1 for _ in csv.reader(file)) - 1)
    if seal is None:
        return Record(path.name, rows, "not sealed", None, None)
    digest, block = seal
    state: State = "whole"
    if rows is None:
        state = "missing"
    elif digest != _sha256(path):
        state = "changed"
    return Record(path.name, rows, state, block["code"], block["verified"].get(path.name))


def _block(path: Path) -> dict[str, Any]:
    """Return the seal of a record; empty where there is none."""
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")).get("record", {}))
        if found:
            _check(**found)
    except (ValueError, AttributeError, TypeError):
        raise CorruptDataError(f"{path} is damaged; restore it from git") from None
    return found


def _check(*, sha256: Any, code: Any, verified: Any) -> None:
    texts = [code, *sha256.keys(), *sha256.values()]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError
    if not all({"date", "rows"} <= facts.keys() for facts in verified.values()):
        raise ValueError


def _path(name: str, layout: Layout) -> Path:
    return _folder(layout) / f"{name}.json"


def _folder(layout: Layout) -> Path:
    return layout.data / "results"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
