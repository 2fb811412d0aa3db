"""One form for every executed notebook, so that running it again makes no diff.

Kept: sources, outputs, the tags of cells. Fixed: cell ids, execution counts, kernel and language
metadata. Dropped: timings, injected cells, widget state. Refused: outputs that differ from machine
to machine or from run to run, because then a reader cannot reproduce what the notebook shows.
"""

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nbformat import NotebookNode, from_dict

from krratio.errors import NotebookError

__all__ = ["code_cells", "label", "normalize", "without_outputs"]

METADATA: dict[str, dict[str, str]] = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},  # for viewers; no version
}
MINOR = 5  # the first minor version of format 4 with cell ids

INJECTED_TAGS = frozenset({"injected-parameters", "papermill-error-cell-tag"})
KEPT_METADATA = ("tags", "jupyter", "slideshow")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}\b")
CELL_FILE = re.compile(r"ipykernel_\d+")


def normalize(notebook: NotebookNode, places: Sequence[Path] = ()) -> NotebookNode:
    """Return `notebook` in the form that is committed; the argument is left as it was.

    Idempotent: normalizing twice is normalizing once.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        Format 4, executed or not.
    places : sequence of pathlib.Path
        Folders of this machine that no output may name, such as the clone and the home folder.

    Raises
    ------
    NotebookError
        Naming the cell whose output holds one of `places` or a memory address, or that wrote to
        stderr.
    """
    cells = [_cell(copy.deepcopy(cell)) for cell in notebook.cells if not _is_injected(cell)]
    for index, cell in enumerate(cells, start=1):
        cell["id"] = f"cell-{index:02d}"
    for count, cell in enumerate((c for c in cells if _runs(c)), start=1):
        _number(cell, count)
        for problem in _unstable(cell, places):
            raise NotebookError(f"{label(cell, count)}: {problem}")
    normal = copy.copy(notebook)
    normal.cells, normal.metadata = cells, _node(METADATA)
    normal.nbformat, normal.nbformat_minor = 4, MINOR
    return normal


def without_outputs(notebook: NotebookNode) -> NotebookNode:
    """Return a copy of `notebook` as it was before it ran."""
    bare = copy.deepcopy(notebook)
    bare.cells = [cell for cell in bare.cells if not _is_injected(cell)]
    for cell in bare.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return bare


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells that hold code; a kernel skips the empty ones and counts the rest."""
    return [cell for cell in notebook.cells if _runs(cell)]


def label(cell: NotebookNode, count: int) -> str:
    """Say which code cell this is: its number, as Jupyter shows it, and its first line."""
    first = next(line for line in cell.source.splitlines() if line.strip())
    return f"cell [{count}] {first.strip()!r}"


def _runs(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip())


def _is_injected(cell: NotebookNode) -> bool:
    return bool(INJECTED_TAGS & set(cell.metadata.get("tags", [])))


def _node(content: dict[str, dict[str, str]]) -> NotebookNode:
    node: NotebookNode = from_dict(content)
    return node


def _cell(cell: NotebookNode) -> NotebookNode:
    for key in list(cell.metadata):
        if key not in KEPT_METADATA or not cell.metadata[key]:
            del cell.metadata[key]
    if cell.cell_type == "code":
        cell.execution_count = None
        cell.outputs = _merged([_output(output) for output in cell.outputs])
    return cell


def _output(output: NotebookNode) -> NotebookNode:
    if "execution_count" in output:
        output.execution_count = None
    if "data" in output:
        output.data.pop(WIDGET_VIEW, None)
    return output


def _merged(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join what one stream printed in a row; where the kernel cut it is a matter of timing."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last is not None and _stream(output) and _stream(output) == _stream(last):
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _stream(output: NotebookNode) -> str | None:
    return str(output.name) if output.output_type == "stream" else None


def _number(cell: NotebookNode, count: int) -> None:
    cell.execution_count = count
    for output in cell.outputs:
        if output.output_type == "execute_result":
            output.execution_count = count


def _unstable(cell: NotebookNode, places: Sequence[Path]) -> Iterator[str]:
    """Yield what in the outputs of `cell` would differ elsewhere, with what to do about it."""
    checks: list[tuple[Callable[[str], bool], str]] = [
        (_names_place(place), f"its output names the folder {place}; print no absolute paths")
        for place in places
        if len(place.parts) > 1  # a home folder "/" would be found everywhere
    ]
    for output in cell.outputs:
        if _stream(output) == "stderr":
            yield f"it wrote to stderr: {output.text.strip()[:200]!r}; a chapter runs silently"
        for text in _texts(output):
            yield from (problem for found, problem in checks if found(text))
            if CELL_FILE.search(text):
                yield "its output names a temporary file of the kernel; print no warnings or paths"
            if address := ADDRESS.search(text):
                yield (
                    f"its output holds a memory address ({address[0]!r}), another one in each run; "
                    "end the line with a semicolon or print something stable"
                )


def _names_place(place: Path) -> Callable[[str], bool]:
    pattern = re.compile(re.escape(str(place)) + r"(?![\w-])")
    return lambda text: pattern.search(text) is not None


def _texts(output: NotebookNode) -> Iterator[str]:
    if "text" in output:
        yield output.text
    for kind, content in output.get("data", {}).items():
        if kind.startswith("text/") or kind == "image/svg+xml":
            yield str(content)
