"""Records: results that are kept in git, whatever becomes of the code that made them.

Each ``data/results/NAME.json`` says where its tables come from; its entry ``record`` vouches for
them: their SHA-256, the hash of the code that made them, and when a part was last computed again.
"""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from krratio.errors import CorruptDataError
from krratio.pipeline.code import code_hash
from krratio.pipeline.layout import CLONE, Layout
from krratio.writing import write_text

__all__ = ["Record", "records", "seal"]


@dataclass(frozen=True)
class Record:
    """One table of a record.

    Attributes
    ----------
    table : str
        The file's name.
    rows : int
    is_intact : bool
        Whether the file is the one that was sealed.
    code : str or None
        Hash of the code that made it; None if nobody sealed it.
    verified : mapping or None
        Date, code, rows, largest difference and tolerance of the last time it was computed again.
    """

    table: str
    rows: int
    is_intact: bool
    code: str | None
    verified: Mapping[str, Any] | None


def seal(
    name: str,
    tables: Sequence[str],
    layout: Layout = CLONE,
    *,
    code: str | None = None,
    verified: Mapping[str, Any] | None = None,
) -> None:
    """Vouch for tables as they are now; all other facts of the record stay.

    Parameters
    ----------
    name
        Of the record, ``NAME.json``, which exists.
    tables
        Its CSV files, by name.
    code
        Hash of the code that made them; that of the code as it is now by default.
    verified
        See `Record`.
    """
    path = _folder(layout) / f"{name}.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts["record"] = {
        "sha256": {table: _sha256(_folder(layout) / table) for table in tables},
        "code": code or code_hash(layout),
        "verified": dict(verified) if verified else None,
    }
    write_text(path, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def records(layout: Layout = CLONE) -> list[Record]:
    """Return all tables in data/results.

    Raises
    ------
    CorruptDataError
        If a ``.json`` there cannot be read, or vouches for a table that is missing.
    """
    sealed: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for path in sorted(_folder(layout).glob("*.json")):
        block = _block(path)
        sealed |= {table: (digest, block) for table, digest in block.get("sha256", {}).items()}
    tables = {path.name: path for path in sorted(_folder(layout).glob("*.csv"))}
    for table in sorted(sealed.keys() - tables.keys()):
        raise CorruptDataError(f"data/results/{table} is missing, though a record vouches for it")
    return [_record(path, sealed.get(name)) for name, path in tables.items()]


def _record(path: Path, seal: tuple[str, Mapping[str, Any]] | None) -> Record:
    with path.open(encoding="utf-8", newline="") as file:
        rows = sum(1 for _ in csv.reader(file)) - 1
    if seal is None:
        return Record(path.name, rows, False, None, None)
    digest, block = seal
    return Record(path.name, rows, digest == _sha256(path), block["code"], block["verified"])


def _block(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("record", {})
    except (ValueError, AttributeError):
        raise CorruptDataError(f"{path} is damaged; restore it from git") from None
    return dict(found)


def _folder(layout: Layout) -> Path:
    return layout.data / "results"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
