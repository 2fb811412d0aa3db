"""Executed notebooks have one form, and hold nothing of the machine they ran on."""

from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest
from nbformat import NotebookNode, v4

from krratio.errors import NotebookError
from krratio.pipeline import nbfile
from krratio.pipeline.normalize import code_cells, label, normalize, without_outputs
from tiny_clone import code, make_notebook


def executed(*outputs: dict[str, Any]) -> NotebookNode:
    """Return a notebook as papermill leaves it, with `outputs` in its second code cell."""
    notebook = make_notebook("", "print(n)")
    notebook.cells.insert(2, code("n = 5", "injected-parameters"))
    notebook.metadata.papermill = {"duration": 3.2}
    notebook.metadata.widgets = {"state": {}}
    notebook.metadata.language_info = {"name": "python", "version": "3.11.7"}
    for cell in notebook.cells:
        cell.metadata.execution = {"iopub.execute_input": "now"}
        cell.metadata.setdefault("tags", [])
    notebook.cells[-1].execution_count = 17
    notebook.cells[-1].outputs = [v4.new_output(**output) for output in outputs]
    return notebook


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def shown(**data: str) -> dict[str, Any]:
    return {"output_type": "display_data", "data": data}


def test_normalizing_twice_is_normalizing_once() -> None:
    notebook = executed(stream("3\n"), shown(**{"text/plain": "figure"}))
    before = nbfile.to_text(notebook)
    once = normalize(notebook)
    assert nbfile.to_text(normalize(once)) == nbfile.to_text(once)
    assert nbfile.to_text(notebook) == before, "the argument was changed"
    again = normalize(nbfile.from_text(nbfile.to_text(once)))
    assert nbfile.to_text(again) == nbfile.to_text(once)


def test_what_differs_from_run_to_run_is_gone_and_the_rest_is_kept() -> None:
    result = {"output_type": "execute_result", "data": {"text/plain": "3"}, "execution_count": 17}
    notebook = normalize(executed(stream("3\n"), result))
    assert [cell.id for cell in notebook.cells] == ["cell-01", "cell-02", "cell-03", "cell-04"]
    assert [dict(cell.metadata) for cell in notebook.cells] == [
        {},
        {"tags": ["parameters"]},
        {},
        {},
    ]
    assert sorted(notebook.metadata) == ["kernelspec", "language_info"]
    assert "version" not in notebook.metadata.language_info
    counts = [cell.get("execution_count") for cell in notebook.cells]
    assert counts == [None, 1, None, 2], "text and empty cells are not counted"
    assert [o.output_type for o in notebook.cells[3].outputs] == ["stream", "execute_result"]
    assert notebook.cells[3].outputs[1].execution_count == 2


def test_what_one_stream_printed_in_a_row_is_one_output() -> None:
    notebook = normalize(executed(stream("a\n"), stream("b\n"), shown(), stream("c\n")))
    assert [o.get("text") for o in notebook.cells[-1].outputs] == ["a\nb\n", None, "c\n"]


def test_widget_views_are_dropped_but_not_their_text() -> None:
    view = {"application/vnd.jupyter.widget-view+json": "{}", "text/plain": "bar"}
    notebook = normalize(executed(shown(**view)))
    assert notebook.cells[-1].outputs[0].data == {"text/plain": "bar"}


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (stream("read /home/ada/clone/data\n"), "names the folder /home/ada/clone; print no"),
        (shown(**{"text/html": "<a href='/home/ada/x'>"}), "names the folder /home/ada;"),
        (stream("<Line2D at 0x7f3a5c0d2e10>"), r"memory address \('at 0x7f3a5c0d2e10'\)"),
        (stream("careful", "stderr"), "it wrote to stderr: 'careful'; a chapter runs silently"),
        (stream(f"{gettempdir()}/ipykernel_31/2.py:1"), "names a temporary file of the kernel"),
    ],
)
def test_an_output_that_differs_elsewhere_is_refused_with_its_cell(
    output: dict[str, Any], message: str
) -> None:
    places = (Path("/home/ada/clone"), Path("/home/ada"), Path("/"))
    with pytest.raises(NotebookError, match=r"^cell \[2\] 'print\(n\)': .*" + message):
        normalize(executed(output), places)


def test_a_longer_name_that_starts_like_a_folder_is_no_folder() -> None:
    normalize(executed(stream("/home/adalbert /root/x")), (Path("/home/ada"), Path("/")))


def test_outputs_are_removed_for_a_new_run() -> None:
    bare = without_outputs(executed(stream("3\n")))
    assert [cell.get("outputs") for cell in bare.cells] == [None, [], [], []]
    assert label(code_cells(bare)[1], 2) == "cell [2] 'print(n)'"


def test_a_file_that_is_no_notebook_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "broken.ipynb"
    for text in (
        "{",
        "[]",
        "{}",
        '{"nbformat": 2, "cells": [{}]}',
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{}]}',
    ):
        path.write_text(text)
        with pytest.raises(NotebookError, match=r"broken\.ipynb is not a notebook"):
            nbfile.read(path)
