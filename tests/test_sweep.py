"""A sweep computes every task once, whatever the workers, and its commands say what they did."""

import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import krratio as kr
from krratio import cli
from krratio.errors import ClusterError, GridError, MissingExtraError, StoreError
from krratio.pipeline.layout import CLONE, Layout
from krratio.pipeline.storing.export import export
from krratio.pipeline.storing.verify import verify
from krratio.pipeline.sweeping import child
from krratio.pipeline.sweeping.checkpoint import Checkpoint
from krratio.pipeline.sweeping.child import perform
from krratio.pipeline.sweeping.cluster import connect
from krratio.pipeline.sweeping.engine import Engine
from krratio.pipeline.sweeping.estimate import Costs
from krratio.pipeline.sweeping.function import code_of
from krratio.pipeline.sweeping.progress import SweepProgress, duration
from krratio.pipeline.sweeping.sandbox import Sandbox
from krratio.pipeline.sweeping.summary import Summary
from krratio.pipeline.sweeping.task import Limits, Outcome, Task

MODULE = """
import os, subprocess, sys, time
import numpy as np

def measure(rank, seed):
    generator = np.random.default_rng([rank, seed])
    return {"value": float(generator.standard_normal()), "twice": 2 * rank}

def fails(rank, seed):
    if rank == 2:
        raise ValueError("rank 2 is bad")
    return {"value": rank}

def theory(R, seed):
    import krratio as kr
    from torch import nn
    layers = nn.Conv2d(2, R, 3), nn.Conv2d(R, 3 * R, 1), nn.Flatten(), nn.Linear(3 * R * 9, 2)
    return {"dimension": kr.intrinsic_dimension(nn.Sequential(*layers), (2, 5, 5)).value}

def trains(width, seed, checkpoint, pause=0.0):
    import torch
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(width, generator=generator, requires_grad=True)
    optimizer, start = torch.optim.SGD([weight], lr=0.1, momentum=0.9), 0
    state = checkpoint.load()
    if state is not None:
        start = state["step"]
        weight.data = state["weight"]
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
    for step in range(start, 8):
        optimizer.zero_grad()
        (weight * torch.randn(width, generator=generator)).sum().square().backward()
        optimizer.step()
        time.sleep(pause)
        checkpoint.save({"step": step + 1, "weight": weight.detach(),
                         "optimizer": optimizer.state_dict(), "generator": generator.get_state()})
    return {"norm": float(weight.detach().norm()), "from_step": start}

def settings():
    import torch
    return {"threads": torch.get_num_threads(), "hash": os.environ["PYTHONHASHSEED"]}

def talks(size):
    print("to the screen")
    os.write(1, b"and past Python")
    return {"text": "x" * size}

def exits():
    sys.stderr.write("last words")
    sys.stderr.flush()
    os._exit(3)

def hangs(trace):
    subprocess.Popen([sys.executable, "-c", f"import time; time.sleep(1.5); open({trace!r}, 'w')"])
    time.sleep(60)

def waits(i):
    time.sleep(0.8)
    return {"y": i}

hoard = []
def leaks():
    hoard.append(bytearray(150_000_000))
    time.sleep(0.3)
    return {"held": len(hoard)}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("sweeps")
    (found / "sweep_trials.py").write_text(MODULE)
    (found / "measure.yaml").write_text(
        "function: sweep_trials:measure\nparameters: {rank: [1, 2, 3]}\nseeds: 4\n"
        "show: {value: value, by: [rank], best: min}\n"
    )
    return found


def drawn(rank: int, seed: int) -> float:
    return float(np.random.default_rng([rank, seed]).standard_normal())


@pytest.fixture(scope="module")
def done(folder: Path) -> Path:
    """The store of a sweep that is finished."""
    path = folder / "done.sqlite"
    assert cli.main(["sweep", str(folder / "measure.yaml"), "--store", str(path)]) == 0
    return path


def test_every_task_is_computed_once(done: Path) -> None:
    with kr.Store(done) as store:
        rows = list(store.rows())
    assert [row.rows for row in rows] == [
        ({"value": drawn(rank, seed), "twice": 2 * rank},)
        for rank in (1, 2, 3)
        for seed in range(4)
    ]
    assert {row.attempts for row in rows} == {1}
    assert all(row.where and row.where["versions"]["torch"] == "2.13.0" for row in rows)


def test_the_table_has_mean_error_and_best(done: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["status", str(done)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"measure: 12 of 12 tasks done, 0 failed, 0 pending; {done}"
    values = [drawn(2, seed) for seed in range(4)]
    error = np.std(values, ddof=1) / 2
    wanted = ["2", "4", f"{np.mean(values):.6g}", f"{error:.2g}", f"{min(values):.6g}"]
    assert lines[4].split() == [*wanted, str(4 + int(np.argmin(values)))]


def test_a_store_with_results_wants_to_be_resumed(
    done: Path, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    sweep = ["sweep", str(folder / "measure.yaml"), "--store", str(done)]
    assert cli.main(sweep) == 2
    assert (
        "holds 12 of these 12 tasks already; go on with the rest by --res"
        in capsys.readouterr().err
    )
    assert cli.main([*sweep, "--resume"]) == 0
    assert "12 of 12 tasks done" in capsys.readouterr().out


def test_a_dry_run_lists_tasks_and_costs(done: Path, folder: Path, capsys) -> None:
    grid = folder / "more.yaml"
    grid.write_text(
        "name: measure\nfunction: sweep_trials:measure\nparameters: {rank: [3, 4]}\nseeds: 5\n"
    )
    absent = folder / "absent.sqlite"
    assert cli.main(["sweep", str(grid), "--store", str(absent), "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "10 of 10 tasks to run, cost unknown"
    assert not absent.exists()
    assert cli.main(["sweep", str(grid), "--store", str(done), "--dry-run", "--jobs", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:10]] == ["done"] * 4 + ["pending"] * 6
    assert lines[4].endswith("task 4 (rank=3, seed=4)")
    assert lines[-1] == "6 of 10 tasks to run, about 0:00:00 with 3 at a time"


def test_costs_are_means_of_the_same_parameters_or_of_all(done: Path) -> None:
    with kr.Store(done) as store:
        rows = list(store.rows())
    seconds = [row.seconds or math.nan for row in rows]
    costs = Costs.of(rows)
    assert costs.seconds(Task(0, "f", "c", {"rank": 2}, 9)) == pytest.approx(np.mean(seconds[4:8]))
    assert costs.seconds(Task(0, "f", "c", {"rank": 9}, 9)) == pytest.approx(np.mean(seconds))
    assert Costs.of([]).seconds(rows[0].task) is None


def test_a_failure_is_marked_and_tried_again_when_asked(folder: Path, capsys) -> None:
    grid, store = folder / "fails.yaml", folder / "fails.sqlite"
    grid.write_text("function: sweep_trials:fails\nparameters: {rank: [1, 2, 3]}\nseeds: 1\n")
    command = [str(grid), "--store", str(store), "--jobs", "1"]
    assert cli.main(["sweep", *command]) == 1
    out, err = capsys.readouterr()
    assert "2 of 3 tasks done, 1 failed, 0 pending" in out
    assert (
        "failed: task 1 (rank=2, seed=0): ValueError: rank 2 is bad (sweep_trials.py, line" in err
    )
    assert cli.main(["export", str(store), "--out", str(folder / "f.csv")]) == 2
    assert "1 failed; finish them by" in capsys.readouterr().err
    assert cli.main(["retry", *command]) == 1
    with kr.Store(store) as found:
        assert [(row.status, row.attempts) for row in found.rows()] == [
            ("done", 1),
            ("failed", 2),
            ("done", 1),
        ]
    assert cli.main(["status", str(store)]) == 0
    assert "  failed: task 1 (rank=2, seed=0): ValueError" in capsys.readouterr().out


def test_results_do_not_depend_on_workers_or_order(folder: Path) -> None:
    grid = kr.Grid("theory", "sweep_trials:theory", {"R": [1, 2, 3]}, seeds=[0], folder=folder)
    trains = kr.Grid(
        "trains", "sweep_trials:trains", {"width": [3, 5]}, seeds=[0, 1], folder=folder
    )
    texts = []
    for jobs, shuffle in ((1, None), (2, 3), (4, None)):
        for one in (grid, trains):
            path = folder / f"{one.name}-{jobs}.sqlite"
            report = kr.sweep(one, kr.SweepOptions(store=path, jobs=jobs, shuffle=shuffle))
            assert (report.counts["done"], report.stopped) == (len(one), "")
            with kr.Store(path) as store:
                export(store, folder / "same.csv")
            texts.append((folder / "same.csv").read_bytes())
    assert texts[0::2] == [texts[0]] * 3
    assert texts[1::2] == [texts[1]] * 3
    assert not list(folder.glob("trains*.checkpoints"))


def test_a_long_task_goes_on_where_it_was(folder: Path) -> None:
    grid, store = folder / "trains.yaml", folder / "killed.sqlite"
    grid.write_text(
        "function: sweep_trials:trains\nparameters: {width: [4], pause: [0.3]}\nseeds: 1\n"
    )
    command = [sys.executable, "-m", "krratio", "sweep", str(grid), "--store", str(store)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as driver:
        until = time.monotonic() + 60
        while not list(folder.glob("killed.sqlite.checkpoints/*.pt")) and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.5)
        driver.kill()
    assert subprocess.run([*command, "--resume"], check=False, capture_output=True).returncode == 0
    with kr.Store(store) as found:
        (row,) = found.rows("done")
    assert row.rows is not None
    assert row.rows[0]["from_step"] > 0
    undisturbed = perform(request(folder, "trains", folder / "fresh.pt", width=4, seed=0))
    assert undisturbed["rows"][0]["norm"] == row.rows[0]["norm"]


def test_a_sweep_that_is_out_of_time_goes_on_later(folder: Path, capsys) -> None:
    grid, store = folder / "slow.yaml", folder / "slow.sqlite"
    grid.write_text("function: sweep_trials:waits\nparameters: {i: [1, 2, 3, 4]}\n")
    command = ["sweep", str(grid), "--store", str(store), "--jobs", "1"]
    assert cli.main([*command, "--max-hours", str(3 / 3600)]) == 1
    out, err = capsys.readouterr()
    assert "out of time; --resume goes on with the rest" in err
    assert "0 failed, 0 pending" not in out
    assert cli.main([*command, "--resume"]) == 0


# The code that made a result.


def copy_of_the_kit(root: Path) -> dict[str, str]:
    shutil.copytree(
        CLONE.source, root / "src/krratio", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(CLONE.lock, root / "requirements.lock")
    return {**os.environ, "PYTHONPATH": str(root / "src")}


def test_a_result_is_not_used_once_a_called_function_has_changed(tmp_path: Path) -> None:
    environment = copy_of_the_kit(tmp_path)
    (tmp_path / "caller.py").write_text(
        "from krratio.theory.counts import expected_cp_dimension as d\n"
        "def f(R):\n    return {'d': d((3, 4, 5), R)}\n"
    )
    (tmp_path / "caller.yaml").write_text("function: caller:f\nparameters: {R: [1, 2]}\n")
    called = tmp_path / "src/krratio/theory/counts/canonical.py"

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "krratio", *command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    sweep = ("sweep", "caller.yaml", "--store", "s.sqlite", "--jobs", "1", "--resume")
    run(*sweep)
    assert "0 of 2 tasks to run" in run(*sweep, "--dry-run")
    before = called.read_text(encoding="utf-8")
    called.write_text(before + "\n_ = 0\n", encoding="utf-8")
    assert "2 of 2 tasks to run" in run(*sweep, "--dry-run")
    run(*sweep)
    assert "2 more, of other code or values, are not used" in run("status", "s.sqlite")
    called.write_text(before, encoding="utf-8")
    assert "0 of 2 tasks to run" in run(*sweep, "--dry-run")
    (tmp_path / "src/krratio/pipeline/report.py").write_text("# no result depends on it\n")
    assert "0 of 2 tasks to run" in run(*sweep, "--dry-run")
    (tmp_path / "requirements.lock").write_text("numpy==1.0\n")
    assert "2 of 2 tasks to run" in run(*sweep, "--dry-run")


def test_verify_computes_a_sample_again(done: Path, folder: Path, capsys) -> None:
    assert cli.main(["verify", str(done), "--sample", "5", "--seed", "3"]) == 0
    said = capsys.readouterr().out
    assert "5 tasks computed again by the same code: 0 differ, by 0 at most (--seed 3)" in said
    assert cli.main(["status", str(done)]) == 0
    assert "5 tasks computed again, 0 differ" in capsys.readouterr().out
    changed = folder / "changed"
    changed.mkdir()
    (changed / "sweep_trials.py").write_text(MODULE.replace("2 * rank", "2.0 * rank + 1e-9"))
    arguments = ["verify", str(done), "--folder", str(changed), "--sample", "99"]
    assert cli.main(arguments) == 1
    out, err = capsys.readouterr()
    assert "12 tasks computed again by other code than the store's: 12 differ" in out
    assert "task 0 (rank=1, seed=0): stored [" in err
    with kr.Store(done, write=True) as store:
        (changed / "sweep_trials.py").write_text(
            MODULE.replace("standard_normal())", "standard_normal()) + 1e-9")
        )
        found = verify(store, changed, sample=12, seed=0, tolerance=1e-6)
        assert 0 < found.largest_difference < 1e-6
        assert (found.differing, found.same_code) == ((), False)


def test_an_export_goes_through_the_command_line_and_back(done: Path, folder: Path, capsys) -> None:
    path = folder / "out.csv"
    assert cli.main(["export", str(done), "--out", str(path)]) == 0
    assert cli.main(["import", str(path), str(folder / "back.sqlite")]) == 0
    assert "12 tasks are in" in capsys.readouterr().out
    with kr.Store(folder / "back.sqlite") as store:
        frame = store.frame()
    assert list(frame.columns) == ["task", "rank", "seed", "value", "twice"]
    assert frame["value"].tolist() == [drawn(r, s) for r in (1, 2, 3) for s in range(4)]
    assert json.loads((folder / "out.json").read_text())["function"] == "sweep_trials:measure"
    verify = [sys.executable, "-m", "krratio", "verify", str(folder / "back.sqlite")]
    again = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert again.returncode == 2  # an export knows no folder
    assert "--folder says where its module lies" in again.stderr
    subprocess.run([*verify, "--folder", str(folder)], capture_output=True, check=True)


# One task in its process.


def request(folder: Path, name: str, checkpoint: Path | None = None, **parameters) -> dict:
    function = f"sweep_trials:{name}"
    child._code_of.cache_clear()  # other tests add files to the folder
    return {
        "function": function,
        "folder": str(folder),
        "code": code_of(function, folder),
        "seed": parameters.pop("seed", None),
        "parameters": parameters,
        "checkpoint": str(checkpoint),
    }


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    found = Sandbox()
    yield found
    found.close()


def test_a_task_has_one_thread_and_fixed_hashes(folder: Path, sandbox: Sandbox) -> None:
    answer = sandbox.run(request(folder, "settings"), Limits())
    assert (answer["rows"], answer["attempts"]) == ([{"threads": 1, "hash": "0"}], 1)


def test_what_a_task_prints_is_no_answer_and_a_long_answer_arrives(
    folder: Path, sandbox: Sandbox
) -> None:
    (row,) = sandbox.run(request(folder, "talks", size=90_000), Limits())["rows"]
    assert row["text"] == "x" * 90_000


def test_a_task_that_ends_its_process_is_tried_three_times(folder: Path, sandbox: Sandbox) -> None:
    answer = sandbox.run(request(folder, "exits"), Limits())
    assert answer["attempts"] == 3
    wanted = "its process died 3 times: exit code 3; it last printed 'last words'"
    assert answer["error"] == wanted
    assert sandbox.run(request(folder, "settings"), Limits())["rows"]


def test_a_task_out_of_time_takes_what_it_started_with_it(folder: Path, sandbox: Sandbox) -> None:
    trace = folder / "outlived"
    answer = sandbox.run(request(folder, "hangs", trace=str(trace)), Limits(seconds=1))
    assert answer["error"] == "it took longer than 1 s, its limit"
    time.sleep(1.5)
    assert not trace.exists()


def test_what_earlier_tasks_left_behind_is_not_held_against_the_next(
    folder: Path, sandbox: Sandbox
) -> None:
    limits = Limits(memory_mb=430)
    answers = [sandbox.run(request(folder, "leaks"), limits) for _ in range(4)]
    assert all(answer.get("rows") for answer in answers), answers
    assert max(answer["attempts"] for answer in answers) == 2


def test_an_abandoned_task_ends_at_once(folder: Path, sandbox: Sandbox) -> None:
    from threading import Timer

    timer = Timer(1.5, sandbox.abandon)
    timer.start()
    began = time.monotonic()
    answer = sandbox.run(request(folder, "hangs", trace=str(folder / "never")), Limits())
    assert time.monotonic() - began < 30
    assert "SIGKILL" in answer["error"]


def test_other_code_is_not_run(folder: Path) -> None:
    asked = request(folder, "settings")
    assert perform({**asked, "code": "abc"}) == {"code": asked["code"]}


def test_an_error_of_a_task_names_its_line(folder: Path) -> None:
    answer = perform(request(folder, "fails", rank=2, seed=0))
    assert answer["error"].startswith("ValueError: rank 2 is bad (sweep_trials.py, line ")
    assert "it returned rank=" not in str(perform(request(folder, "fails", rank=1, seed=0)))


# Checkpoints.


def test_a_checkpoint_comes_back_and_a_damaged_one_does_not(tmp_path: Path) -> None:
    point = Checkpoint(tmp_path / "inner" / "c.pt")
    assert point.load() is None
    point.save({"w": torch.arange(3.0), "step": 2})
    assert torch.equal(point.load()["w"], torch.arange(3.0))
    content = bytearray(point.path.read_bytes())
    content[40] ^= 1
    point.path.write_bytes(bytes(content))
    assert point.load() is None
    assert list(point.path.parent.iterdir()) == [point.path]


def test_a_checkpoint_holds_plain_values_only(tmp_path: Path) -> None:
    point = Checkpoint(tmp_path / "c.pt")
    point.save({"path": Path("x")})
    with pytest.raises(Exception, match=r"weights_only|Unsupported"):
        point.load()


# What is said on the way.


def test_progress_tells_rate_end_and_failures(capsys: pytest.CaptureFixture) -> None:
    task = Task(0, "m:f", "c", {"rank": 1}, None)
    ended = [(task, Outcome(task.key, ({"y": 3.0},), None, 1, 0.1, "", {}))]
    failed = [(task, Outcome(task.key, None, "no", 1, 0.1, "", {}))]
    summary = Summary(kr.Show("y", ("rank",)))
    with SweepProgress(10, 2, summary, every=0) as progress:
        progress.tick()
        progress.add([*ended, *failed])
        progress.tick()
    err = capsys.readouterr().err
    assert "2 of 10, 0 tasks/s, no end in sight" in err
    assert "failed: task 0 (rank=1): no" in err
    assert "4 of 10, 1 failed, " in err
    assert "rank  n  mean y" in err
    assert duration(3723.4) == "1:02:03"


def test_a_table_passes_over_what_is_no_number() -> None:
    task = Task(0, "m:f", "c", {"rank": 1}, None)
    summary = Summary(kr.Show("y"))
    for rows in (None, [], [{"x": 1}], [{"y": True}], [{"y": "a"}], [{"y": math.nan}]):
        summary.add(task, rows)
    assert summary.groups == {}


# Wrong use.

BAD = {
    "jobs": ({"jobs": 0}, "--jobs is 0; give 1 to 4096"),
    "both": ({"jobs": 1, "scheduler": "tcp://x"}, "give one of them"),
    "hours": ({"max_hours": -1.0}, "--max-hours is -1.0; give a positive number"),
    "wait": ({"patience": -1.0}, "--wait is -1.0; give seconds"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_an_option_out_of_range_is_refused(options, message) -> None:
    with pytest.raises(GridError, match=message):
        kr.SweepOptions(**options)


def test_a_scheduler_that_does_not_answer_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("krratio.pipeline.sweeping.cluster.PATIENCE", 0.5)
    with (
        pytest.raises(ClusterError, match=r"tcp://127\.0\.0\.1:9 does not answer"),
        connect("tcp://127.0.0.1:9", 1),
    ):
        pass
    with pytest.raises(ClusterError, match="there is no such file"), connect("no.json", 1):
        pass


def test_results_that_die_with_their_worker_are_computed_again(folder: Path) -> None:
    names = {"function": "sweep_trials:measure", "folder": folder}
    tasks = list(kr.Grid("lost", parameters={"rank": [1, 2]}, seeds=[0, 1], **names).tasks())

    def asked(task: Task) -> dict:
        return request(folder, "measure", seed=task.seed, **task.parameters)

    ended = []
    with connect(None, 2) as client:
        engine = Engine(client, Limits(), asked, pytest.fail)
        for number, some in enumerate(engine.run(iter(tasks), lambda: False)):
            ended += some
            if number == 0:  # both are done and wait to be fetched
                until = time.monotonic() + 60
                while sum(map(len, client.has_what().values())) < 2:
                    assert time.monotonic() < until
                    time.sleep(0.05)
                for process in client.run(os.getpid).values():
                    os.kill(process, signal.SIGKILL)
    values = {(t.parameters["rank"], t.seed): o.rows[0]["value"] for t, o in ended}
    assert len(ended) == len(tasks)
    assert values == {(rank, seed): drawn(rank, seed) for rank in (1, 2) for seed in (0, 1)}


def test_workers_and_driver_keep_their_logs_to_themselves(capfd: pytest.CaptureFixture) -> None:
    def speak() -> None:
        for name in ("distributed", "tornado.application"):
            logger = logging.getLogger(name)
            for handler in logger.handlers:
                handler.setLevel(logging.NOTSET)  # as Dask itself does when a worker ends
            logger.error("a heartbeat met a closed connection")

    with connect(None, 1) as client:
        speak()
        client.run(speak)
    printed = capfd.readouterr()
    assert "heartbeat" not in printed.err + printed.out


def test_a_missing_dask_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(MissingExtraError, match=r"pip install 'krratio\[sweeps\]'"),
        connect(None, 1),
    ):
        pass


def test_status_without_stores_says_so(tmp_path: Path, capsys) -> None:
    assert cli.main(["status"], Layout(tmp_path)) == 0
    assert "no sweep has a store in" in capsys.readouterr().out
    with kr.Store(tmp_path / "runs" / "empty.sqlite", write=True):
        pass
    assert cli.main(["status", "empty"], Layout(tmp_path)) == 0
    assert capsys.readouterr().out.startswith("no sweep yet: 0 of 0 tasks done")
    with (
        kr.Store(tmp_path / "runs" / "empty.sqlite", write=True) as store,
        pytest.raises(StoreError, match="no task is done, so that there is nothing to verify"),
    ):
        verify(store, None, sample=1, seed=0)


WORDS = st.sampled_from(
    "sweep retry status export import verify --jobs --store --out --sample --seed --tolerance "
    "--max-hours --shuffle --wait --resume --dry-run -1 0 x.csv no.yaml a.sqlite .. / é".split()
) | st.text(alphabet=st.characters(exclude_characters="\0"), max_size=5)


@settings(max_examples=150)
@given(words=st.lists(WORDS, max_size=6))
def test_any_words_end_in_a_documented_way(tmp_path_factory, words: list[str]) -> None:
    where = Layout(tmp_path_factory.getbasetemp())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.getbasetemp())
        try:
            code = cli.main(words, where)
        except SystemExit as ended:  # the usage, or a help text
            code = ended.code
    assert code in (0, 1, 2)
