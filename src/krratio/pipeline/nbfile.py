"""Notebooks as text and as files; the one place that knows nbformat's untyped functions."""

from pathlib import Path

import nbformat
from nbformat import NotebookNode

from krratio.errors import NotebookError

__all__ = ["from_text", "read", "to_text", "write"]


def from_text(text: str) -> NotebookNode:
    """Return the notebook that `text` holds, upgraded to format 4."""
    notebook: NotebookNode = nbformat.reads(text, as_version=4)
    return notebook


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
        If the file is not a notebook.
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
