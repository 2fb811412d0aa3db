"""Recorded results are vouched for, and a change of one of them is noticed by name."""

import json
from pathlib import Path

import pandas as pd
import pytest

from krratio import cli
from krratio.errors import CorruptDataError
from krratio.pipeline.code import code_hash
from krratio.pipeline.layout import CLONE, Layout
from krratio.pipeline.records import note, records, seal
from krratio.pipeline.verifying import Comparison, compare, verify_record

HARDWARE = {"hardware": "a machine"}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    folder = tmp_path / "data" / "results"
    folder.mkdir(parents=True)
    (folder / "one.csv").write_text("a,b\n1,2\n3,4\n")
    (folder / "two.csv").write_text("a\n1\n")
    (folder / "one.json").write_text('{"hardware": "a machine"}')
    return Layout(tmp_path)


def test_a_seal_keeps_the_other_facts_and_vouches_for_every_table(layout: Layout, capsys) -> None:
    seal("one", HARDWARE, ["one.csv", "two.csv"], layout)
    note("one", "one.csv", {"date": "2026-01-02", "rows": 1}, layout)
    facts = json.loads((layout.data / "results/one.json").read_text())
    assert facts["hardware"] == "a machine"
    assert facts["record"]["code"] == code_hash(layout)
    one, two = records(layout)
    assert (one.table, one.rows, one.state, two.rows) == ("one.csv", 2, "whole", 1)
    assert cli.main(["records"], layout) == 0
    assert "one.csv  2     whole  this code  1 rows on 2026-01-02" in capsys.readouterr().out


def test_sealing_again_what_is_the_same_keeps_what_is_known_of_it(layout: Layout) -> None:
    seal("one", HARDWARE, ["one.csv"], layout, code="c" * 64)
    note("one", "one.csv", {"date": "2026-01-02", "rows": 1}, layout)
    seal("one", {"hardware": "another"}, ["one.csv"], layout)
    (one, _two) = records(layout)
    assert (one.code, one.verified) == ("c" * 64, {"date": "2026-01-02", "rows": 1})
    assert json.loads((layout.data / "results/one.json").read_text())["hardware"] == "another"
    (layout.data / "results/one.csv").write_text("a,b\n1,7\n")
    seal("one", HARDWARE, ["one.csv"], layout)
    (one, _two) = records(layout)
    assert (one.code, one.verified) == (code_hash(layout), None)


def test_a_change_is_named(layout: Layout, capsys: pytest.CaptureFixture) -> None:
    seal("one", HARDWARE, ["one.csv"], layout, code="c" * 64)
    (layout.data / "results/one.csv").write_text("a,b\n1,2\n3,5\n")
    assert cli.main(["records"], layout) == 1
    out, err = capsys.readouterr()
    assert "one.csv  2     changed     code cccccccccccc  never" in out
    assert "two.csv  1     not sealed  nobody knows" in out
    assert "krratio: data/results/one.csv is not what was recorded; restore it from git\n" in err
    assert "krratio: data/results/two.csv is vouched for by no record\n" in err


def test_a_missing_table_is_listed(layout: Layout, capsys: pytest.CaptureFixture) -> None:
    seal("one", HARDWARE, ["one.csv"], layout, code="c" * 64)
    (layout.data / "results/one.csv").unlink()
    assert cli.main(["records"], layout) == 1
    out, err = capsys.readouterr()
    assert "one.csv        missing     code cccccccccccc  never" in out
    assert "krratio: data/results/one.csv is missing; restore it from git\n" in err


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"record": 3}',
        '{"record": {"sha256": {}}}',
        '{"record": {"sha256": [], "code": "", "verified": {}}}',
        '{"record": {"sha256": {"one.csv": 3}, "code": "", "verified": {}}}',
        '{"record": {"sha256": {"one.csv": ""}, "code": null, "verified": {}}}',
        '{"record": {"sha256": {"one.csv": ""}, "code": "", "verified": {"one.csv": {}}}}',
        '{"record": {"sha256": {"one.csv": ""}, "code": "", "verified": 3}}',
    ],
)
def test_a_damaged_seal_is_named(layout: Layout, capsys: pytest.CaptureFixture, text: str) -> None:
    (layout.data / "results/one.json").write_text(text)
    with pytest.raises(CorruptDataError, match=r"one\.json is damaged; restore it from git"):
        records(layout)
    assert cli.main(["records"], layout) == 2
    assert "one.json is damaged" in capsys.readouterr().err


KEPT = pd.DataFrame(
    {"k": [1, 2, 3], "name": ["a", "b", None], "n": [5, 6, 7], "x": [1.0, 1e-14, float("nan")]}
)


def test_what_is_computed_again_is_compared_with_a_tolerance_for_floats_alone() -> None:
    again = KEPT.iloc[[2, 0]].copy()
    assert compare(KEPT, again, key=["k"]) == Comparison(2, 0.0, ())
    again.loc[0, "x"] = 1 + 5e-7
    found = compare(KEPT, again, key=["k"])
    assert (found.rows, found.unlike) == (2, ())
    assert found.largest == pytest.approx(5e-7)
    again.loc[0, "x"] = 1 + 2e-6
    again.loc[2, ["name", "n"]] = ["c", 8]
    found = compare(KEPT, again, key=["k"])
    assert found.unlike == ("3, name: nan / c", "3, n: 7 / 8", "1, x: 1.0 / 1.000002")
    assert "3 values of 2 rows differ" in found.said()
    assert compare(KEPT, again, key=["k"], apart=["x", "n", "name"]).unlike == ()


def test_numbers_that_are_rounding_are_not_compared_but_nan_is() -> None:
    again = KEPT.copy()
    again.loc[1, "x"] = -3e-14
    assert compare(KEPT, again, key=["k"]).unlike == ()
    again.loc[0, "x"] = float("nan")
    again.loc[2, "x"] = 2.0
    unlike = compare(KEPT, again, key=["k"]).unlike
    assert unlike == ("1, x: 1.0 / nan", "3, x: nan / 2.0")


def test_a_number_where_a_text_was_is_not_the_same() -> None:
    again = KEPT.assign(name=[1.0, 2.0, 3.0])
    assert len(compare(KEPT, again, key=["k"]).unlike) == 3


@pytest.mark.parametrize(
    ("again", "message"),
    [
        (KEPT.iloc[:0], "do not name each of 0 rows once"),
        (pd.concat([KEPT, KEPT]), "do not name each of 6 rows once"),
        (KEPT.assign(k=[1, 2, 9]), r"rows \[9\] were computed again, but are not kept"),
        (KEPT.drop(columns="x"), "computed again are columns"),
    ],
)
def test_rows_that_are_not_those_that_are_kept_are_refused(again, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(KEPT, again, key=["k"])


def test_only_what_holds_is_written_down(layout: Layout) -> None:
    seal("one", HARDWARE, ["one.csv"], layout, code="c" * 64)
    again = pd.DataFrame({"a": [3], "b": [5]})
    assert verify_record("one", "one.csv", again, key=["a"], layout=layout).unlike
    assert records(layout)[0].verified is None
    again["b"] = 4
    assert verify_record("one", "one.csv", again, key=["a"], layout=layout).unlike == ()
    found = records(layout)[0]
    assert found.code == "c" * 64
    assert found.verified is not None
    assert (found.verified["rows"], found.verified["code"]) == (1, code_hash(layout))
    (layout.data / "results/one.csv").write_text("a,b\n1,2\n3,5\n")
    with pytest.raises(CorruptDataError, match=r"one\.csv is changed: there is nothing to verify"):
        verify_record("one", "one.csv", again, key=["a"], layout=layout)


def test_the_committed_records_are_whole() -> None:
    found = records(CLONE)
    assert found
    assert [record.table for record in found if record.state != "whole"] == []
