"""Notebooks as text and as files; the one place that knows nbformat's untyped functions."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.validator import get_validator

from krratio.errors import NotebookError

__all__ = ["from_text", "read", "to_text", "write"]

VERSION = 4


def from_text(text: str) -> NotebookNode:
    """Return the notebook that `text` holds; a ValueError if it is none of format 4.

    It is compared with the schema before nbformat reads it: that converts and mends first, which
    for a damaged file ends in any exception, or in a warning and other cells.
    """
    try:
        _check(json.loads(text))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    notebook: NotebookNode = nbformat.reads(text, as_version=VERSION)
    return notebook


def _check(content: Any) -> None:
    """Raise a ValueError unless this is a notebook of format 4 whose cells have names of their own.

    Of other formats there is none in this repository.
    """
    facts = content if isinstance(content, dict) else {}
    version, minor = facts.get("nbformat"), facts.get("nbformat_minor")
    if version != VERSION or type(minor) is not int or minor < 0:
        raise ValueError(f"its format is {version!r}.{minor!r}, not {VERSION}.5")
    for problem in get_validator(VERSION, minor).iter_errors(content):
        raise ValueError(str(problem.message))
    ids = Counter(cell["id"] for cell in content["cells"] if "id" in cell)
    for name, times in ids.items():
        if times > 1:
            raise ValueError(f"{times} of its cells have the id {name!r}")


def to_text(notebook: NotebookNode) -> str:
    """Return `notebook` as it is written to disk; a ValidationError if it is not one."""
    nbformat.validate(notebook)
    text: str = nbformat.writes(notebook)
    return text.removesuffix("\n") + "\n"


def read(path: Path) -> NotebookNode:
    """Read a notebook.

    Raises
    ------
    NotebookError
        If the file is not a notebook of format 4.
    """
    try:
        notebook = from_text(path.read_text(encoding="utf-8"))
        nbformat.validate(notebook)
    except (ValueError, nbformat.ValidationError) as error:
        raise NotebookError(f"{path} is not a notebook: {error}") from None
    return notebook


def write(notebook: NotebookNode, path: Path) -> None:
    """Write `notebook` to `path`."""
    path.write_text(to_text(notebook), encoding="utf-8", newline="\n")
