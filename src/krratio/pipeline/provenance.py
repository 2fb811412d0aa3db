"""What made a figure: source hash, parameters, seed and versions, as ``figures/<id>.json``.

What changes from run to run or from machine to machine (commit, duration, hardware) is not in it;
that goes to the run log.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from krratio.pipeline import nbfile
from krratio.pipeline.code import CODE, hash_of, source_files, versions
from krratio.pipeline.layout import CLONE, Layout
from krratio.pipeline.parameters import parameters_of
from krratio.pipeline.registry import Chapter, load_registry

__all__ = [
    "FILES",
    "differences",
    "origin",
    "provenance",
    "read_provenance",
    "source_hash",
    "to_text",
    "versions",
    "why_stale",
]

FILES = ("svg", "png", "csv")
"""The files of a figure that its provenance vouches for."""

SOURCES = (*CODE, "plotting.py")
"""The parts of the package that a plotted number can depend on."""


def source_hash(layout: Layout, chapter: Chapter, notebook: NotebookNode) -> str:
    """Return the SHA-256 of everything that the chapter's figures are computed from.

    That is `SOURCES`, the lock file, the embedded data, the sources of the notebook's cells (not
    their outputs), and the chapter's title and figures in the registry. Its profiles are left out:
    what they override is recorded as parameters.
    """
    return hash_of(_ingredients(layout, chapter, notebook))


def _ingredients(
    layout: Layout, chapter: Chapter, notebook: NotebookNode
) -> Iterator[tuple[str, bytes]]:
    yield from source_files(layout, SOURCES)
    for path in sorted(layout.data.glob("*.npz")):
        yield path.relative_to(layout.root).as_posix(), path.read_bytes()
    entry = {"title": chapter.title, "figures": dict(chapter.figures)}
    cells = [[cell.cell_type, cell.source] for cell in notebook.cells]
    yield chapter.stem, json.dumps([entry, cells], sort_keys=True).encode()


def origin(
    chapter: Chapter, figure_id: str, *, profile: str, source: str, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what makes a figure current or stale; `source` is its `source_hash`.

    Values are as JSON keeps them, so that a tuple compares equal to the list it is read back as.
    """
    found = {
        "figure": figure_id,
        "title": chapter.figures[figure_id],
        "notebook": chapter.stem,
        "profile": profile,
        "source": source,
        "parameters": dict(parameters),
        "seed": parameters.get("seed"),
    }
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def provenance(made_from: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the whole record of a figure with that `origin` and its files in `folder`."""
    stem = made_from["figure"]
    hashes = {kind: file_hash(folder / f"{stem}.{kind}") for kind in FILES}
    record = {**made_from, "versions": versions(), "sha256": hashes}
    return {**record, "sha256": {**hashes, "json": own_hash(record)}}


def own_hash(record: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a provenance without this hash."""
    hashes = {kind: record["sha256"].get(kind) for kind in FILES}
    return hashlib.sha256(to_text({**record, "sha256": hashes}).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def to_text(record: Mapping[str, Any]) -> str:
    """Return a provenance as it is written: sorted keys, one final newline."""
    return json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read_provenance(path: Path) -> dict[str, Any] | None:
    """Read a provenance; None if it is missing or is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def differences(made_from: Mapping[str, Any], folder: Path) -> list[str]:
    """Return why the figure in `folder` is not one of this `origin`; nothing if it is.

    Versions are not compared: other versions that give the same data are no change.
    """
    stem = made_from["figure"]
    record = read_provenance(folder / f"{stem}.json")
    if record is None:
        return [f"{stem}.json is missing or unreadable"]
    reasons = [
        f"{key} was {record.get(key)!r} and is {value!r}"
        for key, value in made_from.items()
        if record.get(key) != value
    ]
    hashes = record.get("sha256")
    if not isinstance(hashes, dict) or hashes.get("json") != own_hash(record):
        return [f"{stem}.json is not the file that was recorded", *reasons]
    for kind in FILES:
        path = folder / f"{stem}.{kind}"
        if not path.exists():
            reasons.append(f"{path.name} is missing")
        elif hashes.get(kind) != file_hash(path):
            reasons.append(f"{path.name} is not the file that was recorded")
    return reasons


def why_stale(figure_id: str, layout: Layout = CLONE) -> list[str]:
    """Return why a committed figure is not what the source would make now; nothing if it is.

    Raises
    ------
    RegistryError
        If the figure is not registered.
    """
    chapter = load_registry(layout).chapter_of(figure_id)
    notebook = nbfile.read(layout.notebook(chapter.stem))
    current = origin(
        chapter,
        figure_id,
        profile="default",
        source=source_hash(layout, chapter, notebook),
        parameters=parameters_of(notebook, chapter.stem),
    )
    return differences(current, layout.figures)
