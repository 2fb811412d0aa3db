"""A notebook with its figures is taken over as a whole, or left untouched as a whole."""

import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from krratio.errors import NotebookError
from krratio.pipeline import nbfile
from krratio.pipeline.compare import same_data
from krratio.pipeline.files import is_no_room, replace_all, unwritable
from krratio.pipeline.layout import Layout
from krratio.pipeline.normalize import normalize
from krratio.pipeline.plan import Job, destination, plan
from krratio.pipeline.provenance import own_hash, to_text, why_stale
from krratio.pipeline.unit import FigureSetError, Produced, committed_data, orphans, take_over
from tiny_clone import PARAMETERS, entry, make_clone, make_notebook, snapshot

CSV = "channels,rank,accuracy\n3,R=1,0.8123456789\n5,R=1,0\n"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    notebooks = {"01_a": make_notebook("print(n)", parameters=f"{PARAMETERS}\nseed = 7")}
    registry = {"01_a": entry("one", "two", profiles={"smoke": {"n": 1}})}
    return make_clone(tmp_path / "clone", notebooks, registry)


def job_of(layout: Layout, profile: str = "default") -> Job:
    (job,) = plan(layout, profile, [])
    return job


def produce(layout: Layout, folder: Path, csv: str = CSV, figures: str = "one two") -> Produced:
    """Leave what executing the notebook would leave in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    produced = Produced(folder / "executed.ipynb", folder / "figures")
    produced.figures.mkdir(parents=True)
    notebook = normalize(nbfile.read(layout.notebook("01_a")))
    notebook.cells[-1].outputs = normalize(executed()).cells[-1].outputs
    nbfile.write(notebook, produced.notebook)
    for name in figures.split():
        (produced.figures / f"{name}.svg").write_text("<svg/>")
        (produced.figures / f"{name}.png").write_text("png")
        (produced.figures / f"{name}.csv").write_text(csv)
    return produced


def executed() -> nbfile.NotebookNode:
    notebook = make_notebook("print(n)")
    notebook.cells[-1].outputs = [
        nbfile.NotebookNode(output_type="stream", name="stdout", text="3\n")
    ]
    return notebook


def settle(layout: Layout, csv: str = CSV, figures: str = "one two") -> dict[str, str]:
    """Take over what a run with these data would produce, into the committed folders."""
    produced = produce(layout, layout.root.parent / "run", csv, figures)
    to = destination(layout, "default", None)
    return dict(take_over(job_of(layout), produced, to, layout))


def test_a_first_run_is_new_and_current(layout: Layout) -> None:
    assert why_stale("one", layout) == ["one.json is missing or unreadable"]
    assert settle(layout) == {"one": "new", "two": "new"}
    assert why_stale("one", layout) == []
    assert why_stale("two", layout) == []
    names = sorted(path.name for path in layout.figures.iterdir())
    assert names == [f"{n}.{k}" for n in ("one", "two") for k in ("csv", "json", "png", "svg")]


def test_provenance_holds_what_made_the_figure_and_nothing_of_the_machine(layout: Layout) -> None:
    settle(layout)
    text = (layout.figures / "two.json").read_text()
    record = json.loads(text)
    assert text == json.dumps(record, indent=2, sort_keys=True) + "\n"
    assert (record["figure"], record["title"]) == ("two", "Title of two")
    assert (record["notebook"], record["profile"]) == ("01_a", "default")
    assert (record["parameters"], record["seed"]) == ({"n": 3, "seed": 7}, 7)
    assert set(record["sha256"]) == {"svg", "png", "csv", "json"}
    assert record["versions"]["torch"].count("+") == 0
    assert record["versions"]["python"].count(".") == 1
    assert str(layout.root) not in text


@pytest.mark.parametrize(
    "csv",
    [
        CSV,
        CSV.replace("0.8123456789", "0.8123456797"),  # 1e-9, another processor's rounding
        CSV.replace(",0\n", ",3e-16\n"),  # noise where zero is meant
    ],
)
def test_matching_data_leave_every_committed_byte_untouched(layout: Layout, csv: str) -> None:
    settle(layout)
    before = snapshot(layout.root)
    assert settle(layout, csv) == {"one": "same", "two": "same"}
    assert snapshot(layout.root) == before


@pytest.mark.parametrize(
    "csv",
    [
        CSV.replace("0.8123456789", "0.8133456789"),  # 1e-3
        CSV.replace("5,", "6,"),
        CSV.replace("R=1", "R=2"),
        CSV.replace("rank", "ranks"),
        CSV + "7,R=1,0.5\n",
        CSV.replace(",0\n", ",1e-6\n"),
    ],
)
def test_other_data_in_any_figure_replace_the_whole_unit(layout: Layout, csv: str) -> None:
    settle(layout)
    assert settle(layout, csv) == {"one": "changed", "two": "changed"}
    assert (layout.figures / "two.csv").read_text() == csv
    assert why_stale("one", layout) == []


def edit_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


EDITS: dict[str, Callable[[Layout], None]] = {
    "source": lambda at: edit_text(at.source / "theory" / "formula.py", "42", "43"),
    "new source": lambda at: (at.source / "plotting.py").write_text("style = 1\n") and None,
    "lock": lambda at: edit_text(at.lock, "numpy==2", "numpy==3"),
    "data": lambda at: (at.data / "images.npz").write_bytes(b"other") and None,
    "cell": lambda at: edit_text(at.notebook("01_a"), "print(n)", "print(n + 0)"),
    "parameter": lambda at: edit_text(at.notebook("01_a"), "seed = 7", "seed = 8"),
    "title": lambda at: edit_text(at.registry, "Title of two", "Another title"),
    "picture": lambda at: edit_text(at.figures / "two.svg", "<svg/>", "<svg></svg>"),
    "lost picture": lambda at: (at.figures / "two.png").unlink(),
    "lost provenance": lambda at: (at.figures / "two.json").unlink(),
    "broken provenance": lambda at: edit_text(at.figures / "two.json", "{", "["),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_anything_that_makes_a_figure_stale_refreshes_its_unit(
    layout: Layout, edit: Callable[[Layout], None]
) -> None:
    settle(layout)
    edit(layout)
    assert why_stale("two", layout) != []
    assert set(settle(layout).values()) <= {"changed", "new"}
    assert why_stale("two", layout) == []


def test_what_no_figure_depends_on_makes_none_stale(layout: Layout) -> None:
    settle(layout)
    edit_text(layout.registry, "n: 1", "n: 2")  # the smoke profile
    (layout.source / "cli.py").write_text("")
    path = layout.figures / "two.json"
    record = json.loads(path.read_text())
    record["versions"]["numpy"] = "0.1"
    record["sha256"]["json"] = own_hash(record)
    path.write_text(to_text(record))
    (layout.source / "theory" / "formula.py").write_bytes(b"answer = 42\r\n")  # Windows checkout
    assert why_stale("two", layout) == []
    assert settle(layout) == {"one": "same", "two": "same"}
    edit_text(path, '"numpy": "0.1"', '"numpy": "0.3"')  # by a flipped bit
    assert why_stale("two", layout) == ["two.json is not the file that was recorded"]
    assert settle(layout) == {"one": "changed", "two": "changed"}
    assert why_stale("two", layout) == []


OUTPUT = """{
     "name": "stdout",
     "output_type": "stream",
     "text": [
      "3\\n"
     ]
    }"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"id": "cell-03"', '"id": "5f2a"'),
        ('"execution_count": 2', '"execution_count": 9'),
        ('"name": "python3"', '"name": "mine"'),
        (OUTPUT, ""),
        ('"nbformat": 4', '"nbformat": four'),
    ],
    ids=["cell id", "count", "kernel", "no output", "broken"],
)
def test_a_notebook_that_lost_its_outputs_or_its_form_is_replaced(
    layout: Layout, old: str, new: str
) -> None:
    settle(layout)
    job, to = job_of(layout), destination(layout, "default", layout.root.parent / "out")
    produced = produce(layout, layout.root.parent / "run")
    take_over(job, produced, to, layout)
    copy = to.notebooks / "01_a.ipynb"
    good = copy.read_bytes()
    edit_text(copy, old, new)
    assert take_over(job, produced, to, layout) == {"one": "changed", "two": "changed"}
    assert copy.read_bytes() == good
    assert take_over(job, produced, to, layout) == {"one": "same", "two": "same"}


def test_missing_and_unregistered_figures_are_named_and_nothing_is_taken(layout: Layout) -> None:
    settle(layout)
    before = snapshot(layout.root)
    with pytest.raises(FigureSetError, match=r"did not save 'two'.*; it saved 'three'") as caught:
        settle(layout, CSV + "9,R=1,1\n", "one three")
    assert (caught.value.missing, caught.value.unregistered) == (["two"], ["three"])
    assert snapshot(layout.root) == before


def test_a_source_that_changes_while_the_notebook_runs_is_noticed(layout: Layout) -> None:
    produced = produce(layout, layout.root.parent / "run")
    job = job_of(layout)
    edit_text(layout.source / "theory" / "formula.py", "42", "43")
    with pytest.raises(NotebookError, match="its source changed while it ran"):
        take_over(job, produced, destination(layout, "default", None), layout)
    assert list(layout.figures.iterdir()) == []


def test_a_notebook_without_figures_has_a_status_of_its_own(layout: Layout) -> None:
    job = job_of(layout)
    chapter = dataclasses.replace(job.chapter, figures={})
    edit_text(layout.registry, "  figures:\n    one: Title of one\n    two: Title of two\n", "")
    job = dataclasses.replace(job_of(layout), chapter=chapter)
    produced = produce(layout, layout.root.parent / "run", figures="")
    to = destination(layout, "default", None)
    assert take_over(job, produced, to, layout) == {"-": "changed"}
    assert take_over(job, produced, to, layout) == {"-": "same"}
    elsewhere = destination(layout, "default", layout.root.parent / "out")
    assert take_over(job, produced, elsewhere, layout) == {"-": "new"}


def test_new_data_are_held_against_the_committed_ones(layout: Layout) -> None:
    produced = produce(layout, layout.root.parent / "run")
    assert committed_data("one", produced.figures, layout) == "none"
    settle(layout)
    assert committed_data("one", produced.figures, layout) == "equal"
    edit_text(layout.figures / "one.csv", "0.81", "0.82")
    assert committed_data("one", produced.figures, layout) == "differ"


def test_committed_figures_that_no_notebook_claims_are_found(layout: Layout) -> None:
    settle(layout)
    (layout.figures / "README.md").write_text("not a figure")
    (layout.figures / "old.svg").write_text("<svg/>")
    assert orphans(layout) == ["old"]


def test_integers_are_compared_exactly_and_missing_values_by_place(tmp_path: Path) -> None:
    def same(first: str, second: str) -> bool:
        a, b = tmp_path / "a.csv", tmp_path / "b.csv"
        a.write_text(first)
        b.write_text(second)
        return same_data(a, b) and same_data(b, a)

    assert not same("d\n2000000\n", "d\n2000001\n")
    assert same("d\n2000000.5\n", "d\n2000000.6\n")
    assert same("d,e\n,nan\n", "d,e\n,nan\n")
    assert not same("d\n\n1\n", "d\n0\n1\n")
    assert same("d\n-1e-13\n", "d\n0\n")
    assert not same("d\ninf\n", "d\n1e300\n")
    (tmp_path / "c.csv").write_bytes(b"\xff")
    assert not same_data(tmp_path / "a.csv", tmp_path / "c.csv")
    assert same('d\n"a, b"\n', "d\n" + '"a, b"\n')


def moves_of(tmp_path: Path) -> dict[Path, Path]:
    for name in ("a", "b", "c"):
        (tmp_path / f"new-{name}").write_text(f"new {name}")
        (tmp_path / "at" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "at" / "a").write_text("old a")
    (tmp_path / "at" / "c").write_text("old c")
    return {tmp_path / f"new-{name}": tmp_path / "at" / name for name in ("a", "b", "c")}


def test_files_move_in_together(tmp_path: Path) -> None:
    replace_all(moves_of(tmp_path))
    found = {path.name: path.read_text() for path in (tmp_path / "at").iterdir()}
    assert found == {"a": "new a", "b": "new b", "c": "new c"}


@pytest.mark.parametrize("failing", range(1, 6))
def test_a_swap_that_fails_anywhere_brings_the_old_files_back(
    tmp_path: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves = moves_of(tmp_path)
    before = snapshot(tmp_path / "at")
    original, calls = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == failing:
            raise OSError(5, "Input/output error", str(target))
        return original(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(OSError, match="Input/output error"):
            replace_all(moves)
    assert len(calls) >= failing
    assert snapshot(tmp_path / "at") == before


def test_a_copy_that_finds_no_room_leaves_the_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves = moves_of(tmp_path)
    before = snapshot(tmp_path / "at")
    original = shutil.copyfile

    def copyfile(source: Path, target: Path) -> Path:
        if source.name == "new-c":
            target.write_text("ne")
            raise OSError(28, "No space left on device", str(source), None, str(target))
        return Path(original(source, target))

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    with pytest.raises(OSError, match="No space left") as caught:
        replace_all(moves)
    assert unwritable(caught.value).startswith("no room left to write ")
    assert unwritable(caught.value).endswith("c.new.tmp: No space left on device")
    assert snapshot(tmp_path / "at") == before


def test_ctrl_c_during_a_swap_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves = moves_of(tmp_path)
    original = Path.replace

    def replace(self: Path, target: Path) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        return original(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            replace_all(moves)
    found = {path.name: path.read_text() for path in (tmp_path / "at").iterdir()}
    assert found == {"a": "new a", "b": "new b", "c": "new c"}


def test_a_full_disk_and_a_full_quota_are_no_room_and_others_are_not() -> None:
    assert is_no_room(OSError(28, "No space left on device"))
    assert is_no_room(OSError(27, "File too large"))
    assert not is_no_room(PermissionError(13, "Permission denied"))
