"""One command executes notebooks in processes; whatever fails leaves the old state."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from krratio.errors import ParameterError, RegistryError
from krratio.pipeline import nbfile, worker
from krratio.pipeline.environment import environment
from krratio.pipeline.interpreter import interpreter
from krratio.pipeline.layout import Layout
from krratio.pipeline.plan import destination
from krratio.pipeline.pool import Task, run_tasks
from krratio.pipeline.report import Report
from krratio.pipeline.reproduce import Options, reproduce
from krratio.pipeline.request import Request
from tiny_clone import PARAMETERS, SAVE, entry, make_clone, make_notebook, snapshot

PLOT = """
import pandas as pd
from krratio import plotting
figure, axes = plotting.new_figure()
axes.plot(range(n), marker=plotting.MARKERS[0], label="$K / R$")
axes.legend()
plotting.save(figure, "good-line", pd.DataFrame({"x": range(n), "y": [i / 3 for i in range(n)]}))
""".strip()

NOTEBOOKS = {
    "01_good": make_notebook(PLOT),
    "02_error": make_notebook(SAVE, "save('error-line', [1])", "\n# why\n1 / 0", "print('never')"),
    "03_killed": make_notebook("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"),
    "04_missing": make_notebook(SAVE, "save('extra-line', [1])"),
    "05_plain": make_notebook(
        SAVE, "save('plain-line', [n])", "n, name", parameters=f"{PARAMETERS}\nname = 'default'"
    ),
    "06_path": make_notebook(SAVE, "save('path-line', [n])", "print(os.getcwd())"),
}

REGISTRY = {
    "01_good": entry("good-line"),
    "02_error": entry("error-line"),
    "03_killed": entry("killed-line"),
    "04_missing": entry("missing-line"),
    "05_plain": entry("plain-line", profiles={"smoke": {"n": 2, "name": "é"}}),
    "06_path": entry("path-line"),
}


@dataclass(frozen=True)
class Run:
    layout: Layout
    report: Report
    before: dict[str, bytes]
    after: dict[str, bytes]

    def failure(self, stem: str) -> str:
        (message,) = [text for text in self.report.failures if text.startswith(stem)]
        return message


@pytest.fixture(scope="module")
def foreign_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let Jupyter's own search find a kernel python3 that is not ours."""
    data = tmp_path_factory.mktemp("jupyter")
    spec = data / "kernels" / "python3"
    spec.mkdir(parents=True)
    spec.joinpath("kernel.json").write_text(
        '{"argv": ["/bin/false", "{connection_file}"], "display_name": "x", "language": "python"}'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(data))
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, foreign_kernel: None) -> Run:
    """Everything at once: notebooks that work beside notebooks that fail, with old state below."""
    layout = make_clone(tmp_path_factory.mktemp("all") / "clone", NOTEBOOKS, REGISTRY)
    for name in ("error-line", "killed-line", "missing-line", "path-line"):
        for kind in ("svg", "png", "csv", "json"):
            (layout.figures / f"{name}.{kind}").write_text("old")
    before = snapshot(layout.figures, layout.notebooks)
    with pytest.MonkeyPatch.context() as patch, Path(os.devnull).open("w") as nowhere:
        patch.setattr(sys, "stderr", nowhere)
        report = reproduce(Options(jobs=2), layout)
    after = snapshot(layout.figures, layout.notebooks)
    return Run(layout, report, before, after)


def statuses(report: Report) -> dict[str, str]:
    return {row.figure: row.status for row in report.rows}


def test_failing_notebooks_do_not_keep_the_others_from_running(run: Run) -> None:
    assert not run.report.ok
    assert statuses(run.report) == {
        "good-line": "new",
        "error-line": "failed",
        "killed-line": "failed",
        "missing-line": "missing",
        "extra-line": "unregistered",
        "plain-line": "new",
        "path-line": "failed",
    }
    assert all(row.seconds > 0 for row in run.report.rows)


def test_an_error_is_named_with_notebook_cell_and_first_line(run: Run) -> None:
    assert run.failure("02_error").startswith(
        "02_error: cell [4] '# why': ZeroDivisionError: division by zero"
    )


def test_a_killed_kernel_is_named(run: Run) -> None:
    message = "03_killed: cell [2] 'import os, signal': the kernel died: it was killed, or ran out"
    assert run.failure("03_killed").startswith(message)


def test_missing_and_unregistered_figures_are_named(run: Run) -> None:
    message = run.failure("04_missing")
    assert "it did not save 'missing-line', which figures.yaml lists" in message
    assert "it saved 'extra-line', which figures.yaml does not list" in message


def test_an_output_with_a_path_of_this_machine_is_refused(run: Run) -> None:
    assert "06_path: cell [4] 'print(os.getcwd())': its output names the folder" in run.failure(
        "06_path"
    )


def test_what_failed_is_as_it_was_and_nothing_temporary_is_left(run: Run) -> None:
    changed = {Path(path).stem for path in run.after if run.after[path] != run.before.get(path)}
    assert changed == {"good-line", "plain-line", "01_good", "05_plain"}
    assert set(run.before) <= set(run.after)
    left = sorted(path.name for path in run.layout.runs.iterdir())
    assert left == ["failed", "lock", "log.jsonl"]


def test_a_failed_notebook_is_kept_as_far_as_it_ran(run: Run) -> None:
    assert run.failure("02_error").endswith("as far as it ran: runs/failed/02_error.ipynb")
    kept = nbfile.read(run.layout.runs / "failed" / "02_error.ipynb")
    assert any(
        o.get("ename") == "ZeroDivisionError" for c in kept.cells for o in c.get("outputs", [])
    )
    assert not (run.layout.runs / "failed" / "01_good.ipynb").exists()


def test_each_notebook_gets_a_line_in_the_run_log(run: Run) -> None:
    lines = run.layout.log.read_text().splitlines()
    assert len(lines) == len(NOTEBOOKS)
    assert '"notebook": "01_good", "ok": true' in lines[0]
    assert all('"machine": {"cores"' in line and '"commit": null' in line for line in lines)


def test_the_executed_notebook_holds_outputs_and_a_picture(run: Run) -> None:
    notebook = nbfile.read(run.layout.notebook("01_good"))
    saved = notebook.cells[2].outputs
    assert [output.output_type for output in saved] == ["execute_result", "display_data"]
    assert saved[0].data["text/plain"] == "<figure good-line: svg, png, csv>"
    assert "image/png" in saved[1].data


def test_a_second_run_gives_the_same_bytes_elsewhere_and_leaves_the_first(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = reproduce(Options(only=("good-line", "05_plain"), out=tmp_path / "out"), run.layout)
    assert report.ok
    assert [(row.status, row.data) for row in report.rows] == [("new", "equal")] * 2
    assert snapshot(run.layout.figures, run.layout.notebooks) == run.after
    for path in (tmp_path / "out").rglob("*.*"):
        committed = run.layout.root / path.relative_to(tmp_path / "out")
        assert path.read_bytes() == committed.read_bytes(), path
    assert len(list((tmp_path / "out").rglob("*.*"))) == 2 * 4 + 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sorted(line.split(" in ")[0] for line in err.splitlines()) == [
        "01_good: done",
        "05_plain: done",
    ], "no bar where there is no terminal"


def test_a_profile_is_written_into_the_parameters_cell_and_beside_the_committed_files(
    run: Run,
) -> None:
    report = reproduce(Options(profile="smoke", only=("plain-line",)), run.layout)
    assert [(row.status, row.data) for row in report.rows] == [("new", "differ")]
    assert snapshot(run.layout.figures, run.layout.notebooks) == run.after
    smoke = run.layout.runs / "smoke"
    copy = nbfile.read(smoke / "notebooks" / "05_plain.ipynb")
    assert copy.cells[1].source == "n = 2  # points\nname = 'é'"
    assert len(copy.cells) == len(NOTEBOOKS["05_plain"].cells), "no injected cell"
    assert copy.cells[-1].outputs[0].data["text/plain"] == "(2, 'é')"
    assert (smoke / "figures" / "plain-line.csv").read_text() == "y\n2\n"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (Options(jobs=0), ParameterError, "--jobs is 0; give at least 1"),
        (Options(cell_timeout=0), ParameterError, "--cell-timeout is 0; give a positive number"),
        (Options(profile="fast"), RegistryError, "unknown profile 'fast'; there are default"),
        (Options(only=("nothing",)), RegistryError, "'nothing' is neither a notebook nor a figure"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    tmp_path: Path, options: Options, error: type[Exception], message: str
) -> None:
    layout = make_clone(tmp_path, {"01_a": make_notebook()}, {"01_a": entry()})
    with pytest.raises(error, match=message):
        reproduce(options, layout)
    assert not layout.runs.exists()


def test_a_wrong_override_of_any_profile_stops_the_run_before_it_starts(tmp_path: Path) -> None:
    registry = {"01_a": entry(), "02_b": entry(profiles={"full": {"m": 1}})}
    layout = make_clone(tmp_path, {"01_a": make_notebook(), "02_b": make_notebook()}, registry)
    with pytest.raises(ParameterError, match="'02_b', profile 'full': unknown parameter 'm'"):
        reproduce(Options(), layout)
    assert not layout.runs.exists()


@pytest.mark.parametrize("place", [".", "notebooks", "figures/local", "src/krratio", "data"])
def test_the_committed_folders_are_no_place_for_another_run(tmp_path: Path, place: str) -> None:
    with pytest.raises(RegistryError, match="would write among the committed files"):
        destination(Layout(tmp_path), "smoke", tmp_path / place)


def test_what_could_change_a_result_is_fixed_and_the_rest_is_inherited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("JUPYTER_PATH", "JUPYTER_PREFER_ENV_PATH", "MATPLOTLIBRC", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("KRRATIO_DATA", "/data")
    given = environment(tmp_path / "figures", tmp_path)
    assert not {"JUPYTER_PATH", "JUPYTER_PREFER_ENV_PATH", "MATPLOTLIBRC"} & set(given)
    assert (given["OMP_NUM_THREADS"], given["PYTHONHASHSEED"]) == ("1", "0")
    assert given["KRRATIO_FIGURES"] == str(tmp_path / "figures")
    assert given["KRRATIO_DATA"] == "/data"
    assert os.access(given["MPLCONFIGDIR"], os.W_OK)


def request(tmp_path: Path, source: str, **changes: object) -> Request:
    executable, prefix = interpreter()
    fields = {
        "notebook": nbfile.to_text(make_notebook(source)),
        "folder": str(tmp_path),
        "output": str(tmp_path / "executed.ipynb"),
        "rejected": str(tmp_path / "failed" / "a.ipynb"),
        "cell_timeout": 60.0,
        "executable": executable,
        "prefix": prefix,
        "places": [],
    }
    return Request(**{**fields, **changes})  # type: ignore[arg-type]


def ignore(event: object) -> None:
    """Take no note of an event."""


def test_a_kernel_of_another_interpreter_fails_by_name(tmp_path: Path) -> None:
    wanted = request(tmp_path, "1", executable="/usr/bin/other-python")
    end = worker.serve(wanted, ignore)
    assert end["event"] == "failed"
    assert end["message"].startswith(f"the kernel runs on ({sys.executable!r}")
    assert "not on ('/usr/bin/other-python'" in end["message"]
    assert not (tmp_path / "executed.ipynb").exists()


def test_a_cell_that_takes_too_long_is_named_with_the_way_to_allow_more(tmp_path: Path) -> None:
    wanted = request(tmp_path, "import time\ntime.sleep(600)", cell_timeout=1.0)
    end = worker.serve(wanted, ignore)
    assert end["message"] == (
        "cell [2] 'import time': took longer than 1 s; allow more with --cell-timeout"
    )


def test_a_worker_that_dies_without_a_word_is_a_failure_of_its_notebook(tmp_path: Path) -> None:
    """The kernel kills its parent, as the system does when memory runs out."""
    source = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nimport time\ntime.sleep(60)"
    task = Task(request(tmp_path, source), environment(tmp_path, tmp_path), tmp_path / "log")
    events = list(run_tasks([task], 1))
    kernel = next(event["pid"] for _, event in events if event["event"] == "kernel")
    number, last = events[-1]
    assert (number, last["event"]) == (0, "failed")
    assert last["message"] == "cell [2] 'import os, signal': its process died (signal SIGKILL)"
    assert is_gone(kernel)


def is_gone(pid: int, patience: float = 10.0) -> bool:
    """Say whether a process ends within `patience` seconds."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        if Path(f"/proc/{pid}/stat").exists() and ") Z " in Path(f"/proc/{pid}/stat").read_text():
            return True
        time.sleep(0.05)
    return False


PROGRAM = """
import sys
from pathlib import Path
from krratio.cli import main
from krratio.pipeline.layout import Layout
layout = Layout(Path(sys.argv[1]))
code = main(sys.argv[2:], layout)
for path in sorted(layout.figures.iterdir()):
    print(path.name, repr(path.read_bytes()[:20]))
sys.exit(code)
"""


def start(layout: Layout, *arguments: str, prefix: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    """Start the command on another tree, in a process group of its own.

    It ends with the names and first bytes of the files in figures/.
    """
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", PROGRAM, str(layout.root), "reproduce", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_run_leaves_the_old_state_and_no_process(
    tmp_path: Path, number: int, code: int
) -> None:
    sign = tmp_path / "started"
    source = f"open({str(sign)!r}, 'w').write(str(os.getpid()))\nimport time\ntime.sleep(600)"
    layout = make_clone(
        tmp_path / "clone",
        {"01_slow": make_notebook(SAVE, "save('slow-line', [2])", source)},
        {"01_slow": entry("slow-line")},
    )
    (layout.figures / "slow-line.csv").write_text("y\n1\n")
    before = snapshot(layout.root)
    process = start(layout)
    while not (sign.exists() and sign.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, number)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == code
    assert is_gone(int(sign.read_text())), "the kernel outlived the run"
    if number == signal.SIGKILL:  # nobody was left to remove the temporary folder
        return
    assert stderr == "krratio: interrupted; what was not finished is as it was\n"
    (layout.runs / "lock").unlink()  # an empty file, which says nothing
    assert snapshot(layout.root) == before


KINDS = ("figure", "output", "copy")
MOUNT = 'mount -t tmpfs -o size=1m none "$1" && cp -r "$2/." "$1" && shift 2 && exec "$@"'
LIMIT = 'cp -r "$2/." "$1" && shift 2 && ulimit -f 1024 && exec "$@"'
BIG = "'1.5\\n' * 300_000"  # 1.2 MB


def can_mount() -> bool:
    """Say whether a small file system can be made, in a name space of its own."""
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """Run on a disk of 1 MB, or with files of 1 MB at most where no disk can be made."""
    layout = make_clone(
        tmp_path_factory.mktemp("full") / "clone",
        {
            "01_figure": make_notebook(f"{SAVE}\nsave('figure-line', [{BIG}])"),
            "02_output": make_notebook(SAVE, f"save('output-line', [1]); print({BIG})"),
            "03_copy": make_notebook(SAVE, f"save('copy-line', [({BIG})[:700_000]])"),
        },
        {f"{i:02}_{n}": entry(f"{n}-line") for i, n in enumerate(KINDS, start=1)},
    )
    for name in KINDS:
        (layout.figures / f"{name}-line.csv").write_text("old")
    disk = layout.root.with_name("disk")
    disk.mkdir()
    shell, script = (("unshare", "-rm"), MOUNT) if can_mount() else ((), LIMIT)
    prefix = (*shell, "sh", "-c", script, "sh", str(disk), str(layout.root))
    process = start(Layout(disk), "--jobs", "1", prefix=prefix)
    out, err = process.communicate(timeout=120)
    return out, err, script


def test_a_full_disk_is_named_and_leaves_the_old_files(full_disk: tuple[str, str, str]) -> None:
    out, err, script = full_disk
    figures = [line for line in out.splitlines() if " b'" in line]
    assert "01_figure: cell [2] 'import os, pathlib': OSError: [Errno 2" in err
    assert "02_output: no room left to write " in err
    assert {"figure-line.csv b'old'", "output-line.csv b'old'"} <= set(figures)
    if script == MOUNT:
        assert "03_copy: no room left to write " in err
        assert "copy-line.csv b'old'" in figures
        assert [line.split(".")[0] for line in figures].count("copy-line") == 1
    assert not any(".tmp" in line for line in figures)
    assert "Traceback" not in err
