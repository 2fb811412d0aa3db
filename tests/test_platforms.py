"""The record of other processors is whole, and the script sees a number that moves."""

import csv
import json
from pathlib import Path

import pytest
from nbformat import NotebookNode

import check_platforms
from check_platforms import PAGE, RECORD, VARIANTS, page
from krratio.paths import NOTEBOOKS
from krratio.pipeline import nbfile
from tiny_clone import make_notebook


def test_the_page_shows_the_record() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_notebook_holds_under_every_variant() -> None:
    with RECORD.open(encoding="utf-8", newline="") as file:
        held = {(row["notebook"], row["variant"]): row["holds"] for row in csv.DictReader(file)}
    notebooks = {path.stem for path in NOTEBOOKS.glob("*.ipynb")}
    assert set(held) == {(notebook, variant) for notebook in notebooks for variant in VARIANTS}
    assert set(held.values()) == {"yes"}


def test_every_variant_of_another_processor_rounds_otherwise() -> None:
    facts = json.loads(RECORD.with_suffix(".json").read_text(encoding="utf-8"))
    found = facts["fingerprints"]
    assert set(found) == set(VARIANTS)
    plain = found["as it is"]
    others = [name for name in VARIANTS if name not in ("as it is", "2 threads")]
    assert all(found[name] != plain for name in others)


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.setattr(check_platforms, "ROOT", tmp_path)
    monkeypatch.setattr(check_platforms, "NOTEBOOKS", folder)
    return folder


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("printed", "holds"), [("3\n", "yes"), ("4\n", "no")])
def test_a_notebook_whose_numbers_move_does_not_hold(
    kit: Path, printed: str, holds: str, capsys: pytest.CaptureFixture
) -> None:
    notebook = make_notebook("print(n)")
    output = NotebookNode(output_type="stream", name="stdout", text=printed)
    notebook.cells[-1].outputs = [output]
    for count, cell in enumerate(notebook.cells[1:], start=1):
        cell.execution_count = count
    nbfile.write(notebook, kit / "one.ipynb")
    result = check_platforms.check("one", "as it is")
    assert result.holds == holds
    assert result.source == check_platforms.source("one")
    assert ("1 failed" in capsys.readouterr().out) == (holds == "no")


def test_a_variant_sets_its_own_variables_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    plain = check_platforms.environment("as it is")
    assert "OPENBLAS_CORETYPE" not in plain
    assert (plain["OMP_NUM_THREADS"], plain["OPENBLAS_NUM_THREADS"]) == ("1", "1")
    assert check_platforms.environment("OpenBLAS Haswell")["OPENBLAS_CORETYPE"] == "Haswell"
    assert check_platforms.environment("2 threads")["OMP_NUM_THREADS"] == "2"
