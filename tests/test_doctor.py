"""The doctor finds a sound installation sound, and names what is not."""

import json
from collections import namedtuple
from pathlib import Path

import pytest

from krratio import cli
from krratio.experiments import sources
from krratio.pipeline import nbfile
from krratio.pipeline.doctoring import committed, selftest, surroundings
from krratio.pipeline.layout import CLONE, Layout
from krratio.pipeline.provenance import FILES, origin, provenance, source_hash, to_text
from krratio.pipeline.records import seal
from krratio.pipeline.registry import load_registry
from tiny_clone import entry, make_clone, make_notebook


def findings(capsys: pytest.CaptureFixture, layout: Layout = CLONE) -> tuple[int, dict]:
    code = cli.main(["doctor", "--json"], layout)
    return code, {found["name"]: found for found in json.loads(capsys.readouterr().out)}


def test_a_sound_installation_passes(capsys: pytest.CaptureFixture) -> None:
    code, found = findings(capsys)
    assert code == 0
    assert "failed" not in {one["level"] for one in found.values()}
    assert found["exact dimension"]["fact"] == "44, 44, 87, 87"
    assert found["rank modulo a prime"]["fact"] == "17"
    assert found["figures"]["fact"].endswith("as the notebooks make them")
    assert found["records"]["fact"].endswith("tables whole")
    assert found["data"]["fact"].startswith("embedded subset whole; fashion-mnist ")


def test_a_number_that_is_off_fails(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    wrong = {"rank": lambda: selftest._expect([16], [17]), "raises": lambda: str(1 / 0)}
    monkeypatch.setattr(selftest, "TESTS", wrong)
    assert cli.main(["doctor"]) == 1
    said = capsys.readouterr().out
    lines = [line.split(maxsplit=2) for line in said.splitlines()]
    assert ["failed", "rank", "AssertionError: found [16], known is [17]"] in lines
    assert "ZeroDivisionError: division by zero" in said


def test_another_version_and_a_missing_package_are_named(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "requirements.lock").write_text("# made\nnumpy==1.0\nno-such-package==2.0\n")
    found = surroundings.packages(Layout(tmp_path))
    assert found.level == "warning"
    assert "numpy 2.4.6, locked 1.0; no-such-package missing, locked 2.0" in found.fact
    monkeypatch.setattr(surroundings, "EXTRAS", {"more": "no_such_module"})
    (tmp_path / "requirements.lock").write_text("numpy==2.4.6\n")
    assert surroundings.packages(Layout(tmp_path)).fact == "the extra more is not installed"


def test_a_damaged_data_file_fails_by_name(tmp_path: Path, monkeypatch) -> None:
    damaged = bytearray(sources.EMBEDDED.read_bytes())
    damaged[1000] ^= 1
    path = tmp_path / "subset.npz"
    path.write_bytes(bytes(damaged))
    monkeypatch.setattr(sources, "EMBEDDED", path)
    found = surroundings.data()
    assert (found.level, "subset.npz" in found.fact) == ("failed", True)


def test_little_room_and_another_interpreter_are_warnings(tmp_path: Path, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10, 9, 1e9))
    found = surroundings.room(Layout(tmp_path))
    assert found.level == "warning"
    assert found.fact.startswith("1.0 GB of disk")
    assert surroundings.interpreter(Layout(tmp_path)).level == "warning"


@pytest.fixture
def made(tmp_path: Path) -> Layout:
    """A clone of two notebooks whose figures are current."""
    layout = make_clone(
        tmp_path,
        {"01_one": make_notebook("n"), "02_two": make_notebook("n + 1")},
        {"01_one": entry("one-line"), "02_two": entry("two-line", "two-more")},
    )
    for chapter in load_registry(layout).chapters:
        notebook = nbfile.read(layout.notebook(chapter.stem))
        source = source_hash(layout, chapter, notebook)
        for name in chapter.figures:
            for kind in FILES:
                (layout.figures / f"{name}.{kind}").write_text(f"{name} as {kind}")
            facts = origin(chapter, name, profile="default", source=source, parameters={"n": 3})
            text = to_text(provenance(facts, layout.figures))
            (layout.figures / f"{name}.json").write_text(text)
    return layout


def test_committed_figures_that_are_current_are_sound(made: Layout) -> None:
    found = committed.figures(made)
    assert (found.level, found.fact) == ("ok", "all 3 as the notebooks make them")


def test_a_file_of_a_figure_that_is_another_one_fails_by_name(made: Layout) -> None:
    (made.figures / "one-line.csv").write_text("other")
    (made.figures / "two-line.png").unlink()
    (made.figures / "two-more.json").write_text("{")
    found = committed.figures(made)
    assert found.level == "failed"
    assert found.fact == (
        "one-line.csv is not the file that was recorded, two-line.png is missing, "
        "two-more.json is missing or unreadable; restore from git or krratio reproduce"
    )
    (made.figures / "one-line.svg").unlink()
    assert "and 1 more" in committed.figures(made).fact


def test_a_notebook_that_changed_since_is_a_warning(made: Layout) -> None:
    nbfile.write(make_notebook("n + 2"), made.notebook("02_two"))
    found = committed.figures(made)
    assert (found.level, found.fact) == (
        "warning",
        "other sources now than those that made 02_two",
    )
    made.notebook("02_two").write_text("{")
    found = committed.figures(made)
    assert (found.level, "02_two.ipynb is not a notebook" in found.fact) == ("failed", True)


def test_records_are_compared_with_their_seal(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    folder = layout.data / "results"
    folder.mkdir(parents=True)
    (folder / "one.csv").write_text("a\n1\n")
    found = committed.recorded(layout)
    assert (found.level, found.fact) == ("failed", "one.csv is not sealed; restore from git")
    seal("one", {}, ["one.csv"], layout, code="c")
    assert committed.recorded(layout).fact == "all 1 tables whole"
    (folder / "one.json").write_text("{")
    found = committed.recorded(layout)
    assert (found.level, "one.json is damaged" in found.fact) == ("failed", True)
