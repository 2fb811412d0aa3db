"""Trees laid out like a clone, with notebooks small enough to run in a test."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from nbformat import NotebookNode, v4

from krratio.pipeline import nbfile
from krratio.pipeline.layout import Layout

__all__ = ["SAVE", "code", "entry", "make_clone", "make_notebook", "snapshot"]

PARAMETERS = "n = 3  # points"

# Writes the three files of a figure without importing matplotlib, which takes a kernel seconds.
SAVE = """
import os, pathlib
folder = pathlib.Path(os.environ["KRRATIO_FIGURES"])
def save(name, values):
    folder.joinpath(name + ".svg").write_text("<svg/>")
    folder.joinpath(name + ".png").write_text("png")
    folder.joinpath(name + ".csv").write_text("\\n".join(["y", *map(str, values)]) + "\\n")
""".strip()


def code(source: str, *tags: str) -> NotebookNode:
    """Return a code cell."""
    found: NotebookNode = v4.new_code_cell(source, metadata={"tags": list(tags)} if tags else {})
    return found


def make_notebook(*sources: str, parameters: str = PARAMETERS) -> NotebookNode:
    """Return a notebook with a title, a parameters cell and code cells."""
    cells = [v4.new_markdown_cell("# A question"), code(parameters, "parameters")]
    found: NotebookNode = v4.new_notebook(cells=cells + [code(source) for source in sources])
    return found


def entry(*figures: str, profiles: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the registry's entry of a notebook."""
    found: dict[str, Any] = {"title": "A chapter", "figures": {f: f"Title of {f}" for f in figures}}
    return found if profiles is None else {**found, "profiles": dict(profiles)}


def make_clone(
    root: Path, notebooks: Mapping[str, NotebookNode], registry: Mapping[str, Any]
) -> Layout:
    """Write a clone with these notebooks."""
    layout = Layout(root)
    for folder in (layout.notebooks, layout.figures, layout.data, layout.source / "theory"):
        folder.mkdir(parents=True, exist_ok=True)
    for stem, notebook in notebooks.items():
        nbfile.write(notebook, layout.notebook(stem))
    layout.registry.write_text(yaml.safe_dump(dict(registry)))
    (layout.source / "theory" / "formula.py").write_text("answer = 42\n")
    (layout.data / "images.npz").write_bytes(b"pixels")
    layout.lock.write_text("numpy==2\n")
    return layout


def snapshot(*folders: Path) -> dict[str, bytes]:
    """Return the bytes of every file below `folders`."""
    paths: Sequence[Path] = [p for folder in folders for p in folder.rglob("*") if p.is_file()]
    return {str(path): path.read_bytes() for path in paths}
