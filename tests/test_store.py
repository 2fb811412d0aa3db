"""A store keeps what it is told, whole or not at all, and says so when it cannot."""

import math
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import krratio as kr
from krratio.errors import BusyError, CorruptDataError, ParameterError, StoreError
from krratio.pipeline.inside import inside
from krratio.pipeline.lock import only_one
from krratio.pipeline.storing.export import beside, export, restore
from krratio.pipeline.storing.row import Row
from krratio.pipeline.sweeping.plain import plain, scalar
from krratio.pipeline.sweeping.rows import ResultError, rows_of
from krratio.pipeline.sweeping.task import Outcome, Task

FACTS = {"names": ["rank", "seed"], "show": None, "folder": None}


def task(number: int, rank: object = None) -> Task:
    return Task(number, "m:f", "code", {"rank": number if rank is None else rank}, number)


def outcome(of: Task, *rows: dict, error: str | None = None) -> Outcome:
    found = None if error else tuple(rows)
    return Outcome(of.key, found, error, 1, 0.5, "2026-01-01T00:00:00+00:00", {})


@pytest.fixture
def store(tmp_path: Path):
    with kr.Store(tmp_path / "a.sqlite", write=True) as found:
        found.plan("a", [task(i) for i in range(4)], **FACTS)
        yield found


def test_a_plan_is_pending_and_keeps_what_is_known(store: kr.Store) -> None:
    store.record([(task(1), outcome(task(1), {"y": 1.5})), (task(2), outcome(task(2), error="no"))])
    assert store.counts() == {"pending": 2, "done": 1, "failed": 1}
    store.plan("a", [task(1), task(5)], **FACTS)
    assert [(r.task.parameters["rank"], r.status) for r in store.rows()] == [
        (1, "done"),
        (5, "pending"),
    ]
    assert store.others() == 1  # the failed one
    store.plan("a", [task(2), task(1)], **FACTS)
    assert [row.rows for row in store.rows("done")] == [({"y": 1.5},)]
    assert [row.error for row in store.rows("failed")] == ["no"]


def test_failed_tasks_are_run_again_when_asked_and_attempts_add_up(store: kr.Store) -> None:
    store.record([(task(0), outcome(task(0), error="first"))])
    assert store.retry() == 1
    assert store.counts()["pending"] == 4
    store.record([(task(0), outcome(task(0), {"y": 1}))])
    (row,) = store.rows("done")
    assert (row.attempts, row.error, row.seconds) == (2, None, 0.5)


def test_what_is_written_together_is_there_together_or_not_at_all(store: kr.Store) -> None:
    def outcomes():
        yield task(0), outcome(task(0), {"y": 1})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.record(outcomes())
    assert store.counts()["done"] == 0


def test_a_store_belongs_to_one_sweep(store: kr.Store) -> None:
    with pytest.raises(StoreError, match="holds the sweep 'a', not 'b'; give another --store"):
        store.plan("b", [])
    assert store.counts()["pending"] == 4


def test_rows_can_be_read_while_they_are_written(tmp_path: Path) -> None:
    with kr.Store(tmp_path / "a.sqlite", write=True) as store:
        store.plan("a", [task(i) for i in range(1200)], **FACTS)
        seen = []
        for row in store.rows("pending"):
            seen.append(row.task.number)
            store.record([(row.task, outcome(row.task, {"y": 1}))])
        assert seen == list(range(1200))
        with kr.Store(store.path) as reader:
            assert reader.counts()["done"] == 1200
            assert len(reader.frame()) == len(list(reader.all_rows())) == 1200


def test_a_second_writer_is_told_who_the_first_is(store: kr.Store) -> None:
    with pytest.raises(BusyError, match=r"a\.sqlite is in use by process \d+ on .* since 20"):
        kr.Store(store.path, write=True)
    with pytest.raises(BusyError, match=r"after 0\.2 s of waiting"):
        kr.Store(store.path, write=True, patience=0.2)


def test_a_lock_whose_holder_left_no_name_is_still_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with only_one(path, "x"):
        path.with_name("x.lock.holder").write_text("{")
        with pytest.raises(BusyError, match="x is in use by another process"), only_one(path, "x"):
            pass
    with only_one(path, "x"):
        assert path.exists()


def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    text, foreign = tmp_path / "text.sqlite", tmp_path / "foreign.sqlite"
    text.write_text("notes " * 1000)
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE a (b)")
    for path in (text, foreign):
        before = path.read_bytes()
        for write in (False, True):
            with pytest.raises(StoreError, match="is no store of krratio; give another file"):
                kr.Store(path, write=write)
        assert path.read_bytes() == before
    with pytest.raises(StoreError, match="there is no such store"):
        kr.Store(tmp_path / "absent.sqlite")


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("path", [Path(), Path(".."), Path("/")])
def test_a_folder_is_no_store(path: Path, write: bool) -> None:
    with pytest.raises(StoreError, match="is a folder; a store is a file"):
        kr.Store(path, write=write)


@pytest.mark.parametrize(("version", "advice"), [(2, "use a newer krratio"), (0, "that wrote it")])
def test_another_version_is_refused_naming_both(store: kr.Store, version: int, advice: str) -> None:
    store.close()
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(
        StoreError, match=f"version {version}; this krratio reads version 1.*{advice}"
    ):
        kr.Store(store.path)


def test_a_value_that_was_altered_is_noticed(store: kr.Store) -> None:
    store.record([(task(0), outcome(task(0), {"y": 1}))])
    store.close()
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("UPDATE tasks SET result = '[{\"y\":2}]' WHERE status = 'done'")
        connection.commit()
    with kr.Store(store.path) as altered:
        with pytest.raises(StoreError, match=r"a\.sqlite is damaged \(the row of task .* is not"):
            list(altered.rows())
        assert len(list(altered.rows("pending"))) == 3


def test_what_a_killed_writer_has_written_is_there(tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2]); from test_store import *\n"
        "store = kr.Store(Path(sys.argv[1]), write=True); store.plan('a', [task(0)], **FACTS)\n"
        "store.record([(task(0), outcome(task(0), {'y': 1}))]); os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "a.sqlite"
    command = [sys.executable, "-c", code, str(path), str(Path(__file__).parent)]
    assert subprocess.run(command, check=False).returncode == -9
    assert path.with_name("a.sqlite-wal").exists()
    with kr.Store(path) as store:
        assert store.counts()["done"] == 1
    with kr.Store(path, write=True) as store:  # the lock went with its holder
        assert store.counts()["done"] == 1


# Exports.

NUMBERS = st.integers() | st.floats() | st.booleans() | st.none() | st.text(max_size=6)
NAMES = st.sampled_from(["y", "loss", "ä b", "x,\n\r\"'"])
RESULTS = st.lists(st.dictionaries(NAMES, NUMBERS, max_size=3), max_size=3)


def same(a: object, b: object) -> bool:
    both = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
    return both or (type(a) is type(b) and repr(a) == repr(b))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@settings(max_examples=15)
@given(
    results=st.lists(RESULTS, min_size=1, max_size=5),
    ranks=st.lists(NUMBERS | st.lists(st.integers(), max_size=2), min_size=5, max_size=5),
)
def test_an_export_comes_back_as_it_was(tmp_path_factory, suffix, results, ranks) -> None:
    folder = tmp_path_factory.mktemp("export")
    ranks = [0 if isinstance(r, float) and not math.isfinite(r) else r for r in ranks]
    tasks = [task(i, [ranks[i], i]) for i in range(len(results))]
    with kr.Store(folder / "a.sqlite", write=True) as store:
        store.plan("a", tasks, **FACTS)
        rows = [rows_of(result, {}) for result in results]
        for one, found in reversed(list(zip(tasks, rows, strict=True))):
            store.record([(one, outcome(one, *found))])
        export(store, folder / f"a.{suffix}")
    with kr.Store(folder / "b.sqlite", write=True) as back:
        assert restore(folder / f"a.{suffix}", back) == len(tasks)
        again = list(back.rows())
        export(back, folder / f"b.{suffix}")
    assert (folder / f"a.{suffix}").read_bytes() == (folder / f"b.{suffix}").read_bytes()
    assert [row.task.key for row in again] == [one.key for one in tasks]
    for row, found in zip(again, rows, strict=True):
        assert row.rows is not None
        for before, after in zip(found, row.rows, strict=True):
            assert before.keys() == after.keys()
            assert all(same(before[name], after[name]) for name in before)


def test_the_order_of_recording_does_not_show(tmp_path: Path) -> None:
    texts = []
    for order in ([0, 1, 2], [2, 0, 1]):
        with kr.Store(tmp_path / f"{order[0]}.sqlite", write=True) as store:
            store.plan("a", [task(i) for i in range(3)], **FACTS)
            for i in order:
                store.record([(task(i), outcome(task(i), {"y": i / 3}))])
            export(store, tmp_path / "a.csv")
        texts.append((tmp_path / "a.csv").read_bytes() + beside(tmp_path / "a.csv").read_bytes())
    assert texts[0] == texts[1]
    assert texts[0].startswith(b"task,rank,seed,y\n0,0,0,0.0\n1,1,1,0.3333333333333333\n")


def test_what_is_not_done_is_not_exported_in_silence(store: kr.Store, tmp_path: Path) -> None:
    store.record([(task(0), outcome(task(0), {"y": 1})), (task(1), outcome(task(1), error="no"))])
    with pytest.raises(StoreError, match="2 tasks are pending and 1 failed; finish them by"):
        export(store, tmp_path / "a.csv")
    assert not (tmp_path / "a.csv").exists()
    export(store, tmp_path / "a.csv", partial=True, times=True)
    with kr.Store(tmp_path / "b.sqlite", write=True) as back:
        restore(tmp_path / "a.csv", back)
        assert back.counts() == store.counts()
        assert [row.error for row in back.rows("failed")] == ["no"]
        assert [row.seconds for row in back.rows("done")] == [0.5]
        with pytest.raises(StoreError, match="holds 2 results already; give a new file"):
            restore(tmp_path / "a.csv", back)


def test_a_store_without_a_sweep_has_nothing_to_export(tmp_path: Path) -> None:
    with (
        kr.Store(tmp_path / "a.sqlite", write=True) as store,
        pytest.raises(StoreError, match="holds no sweep; there is nothing to export"),
    ):
        export(store, tmp_path / "a.csv")


def test_a_damaged_export_is_refused_by_name(store: kr.Store, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    export(store, path, partial=True)
    whole = path.read_bytes()
    with kr.Store(tmp_path / "b.sqlite", write=True) as back:
        path.write_bytes(whole + b"9,9,9\n")
        with pytest.raises(CorruptDataError, match=r"a\.csv is not the file that a\.json records"):
            restore(path, back)
        beside(path).write_text("{}")
        with pytest.raises(CorruptDataError, match=r"a\.json is missing, damaged or of another"):
            restore(path, back)
    with pytest.raises(ParameterError, match=r"give a file that ends in \.csv or \.parquet"):
        export(store, tmp_path / "a.xlsx", partial=True)


# Results.


def test_results_become_plain_rows() -> None:
    found = rows_of({"a": np.float32(0.5), "b": torch.tensor(3), "c": None, "rank": 2}, {"rank": 2})
    assert found == [{"a": 0.5, "b": 3}]
    assert rows_of([{"a": 1}, {"a": 2}], {}) == [{"a": 1}, {"a": 2}]
    assert rows_of([], {}) == []


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (3, "it returned 3, int; a task returns one row"),
        ([3], "it returned the row 3; a task returns"),
        ({"": 1}, "it returned the row"),
        ({"a": [1]}, r"it returned a row in which 'a' is \[1\], list; give a number"),
        ({"a": "x" * 100_001}, "'a' is a text of 100,001 characters"),
        ({"rank": 3}, "it returned rank=3, but was given rank=2; return it under another name"),
        ({"task": 3}, "it returned 'task', which is the name of a column of every table"),
    ],
)
def test_a_result_that_no_table_can_hold_is_refused(result: object, message: str) -> None:
    with pytest.raises(ResultError, match=message):
        rows_of(result, {"rank": 2})


def test_scalars_are_recognized() -> None:
    assert scalar(np.bool_(True), "x") is True
    assert plain({"a": (1, np.float64(2.0))}, "x") == {"a": [1, 2.0]}


@pytest.mark.parametrize(
    "name", ["..", "../x", "/etc/x", "a/../../x", "C:\\x", "", "a\0b", "link/x", "."]
)
def test_a_path_of_a_configuration_stays_inside(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(ParameterError, match="stays inside"):
        inside(folder, name, "store")
    assert inside(folder, "a/b.sqlite", "store") == folder / "a" / "b.sqlite"


def test_a_row_reads_what_it_wrote(tmp_path: Path) -> None:
    row = Row(task(3)).after(outcome(task(3), {"y": math.pi}))
    assert Row.read(3, row.values(), tmp_path) == row


def test_a_store_whose_names_are_no_text_is_damaged(store: kr.Store) -> None:
    store.close()
    content = store.path.read_bytes()
    store.path.write_bytes(content.replace(b"INDEX by_status", b"INDEX by_statu\xff"))
    with pytest.raises(StoreError, match=r"a\.sqlite is damaged"):
        kr.Store(store.path)
