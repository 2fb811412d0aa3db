"""Recorded results are vouched for, and a change of one of them is noticed by name."""

import json
from pathlib import Path

import pytest

from krratio import cli
from krratio.errors import CorruptDataError
from krratio.pipeline.code import code_hash
from krratio.pipeline.layout import CLONE, Layout
from krratio.pipeline.records import records, seal


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    folder = tmp_path / "data" / "results"
    folder.mkdir(parents=True)
    (folder / "one.csv").write_text("a,b\n1,2\n3,4\n")
    (folder / "two.csv").write_text("a\n1\n")
    (folder / "one.json").write_text('{"hardware": "a machine"}')
    return Layout(tmp_path)


def test_a_seal_keeps_the_other_facts_and_vouches_for_every_table(layout: Layout, capsys) -> None:
    verified = {"date": "2026-01-02", "rows": 1}
    seal("one", ["one.csv", "two.csv"], layout, verified=verified)
    facts = json.loads((layout.data / "results/one.json").read_text())
    assert facts["hardware"] == "a machine"
    assert facts["record"]["code"] == code_hash(layout)
    one, two = records(layout)
    assert (one.table, one.rows, one.is_intact, two.rows) == ("one.csv", 2, True, 1)
    assert cli.main(["records"], layout) == 0
    assert "one.csv  2     yes    this code  1 rows on 2026-01-02" in capsys.readouterr().out


def test_a_change_is_named(layout: Layout, capsys: pytest.CaptureFixture) -> None:
    seal("one", ["one.csv"], layout, code="c" * 64)
    (layout.data / "results/one.csv").write_text("a,b\n1,2\n3,5\n")
    assert cli.main(["records"], layout) == 1
    out, err = capsys.readouterr()
    assert "one.csv  2     no     code cccccccccccc  never" in out
    assert "two.csv  1     no     nobody knows" in out
    assert "krratio: data/results/one.csv is not what was recorded\n" in err


def test_a_missing_table_and_a_damaged_seal_are_named(layout: Layout) -> None:
    seal("one", ["one.csv"], layout)
    (layout.data / "results/one.csv").unlink()
    with pytest.raises(CorruptDataError, match=r"one\.csv is missing, though a record vouches"):
        records(layout)
    (layout.data / "results/one.json").write_text("{")
    with pytest.raises(CorruptDataError, match=r"one\.json is damaged; restore it from git"):
        records(layout)


def test_the_committed_records_are_whole() -> None:
    found = records(CLONE)
    assert found
    assert [record.table for record in found if not record.is_intact] == []
