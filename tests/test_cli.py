"""The command line says what it does, and its exit code says how it went."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from krratio import cli
from krratio.errors import RegistryError
from krratio.pipeline import reproduce as reproduce_module
from krratio.pipeline.layout import Layout
from krratio.pipeline.report import Report, Row
from krratio.pipeline.reproduce import Options
from tiny_clone import entry, make_clone, make_notebook


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    notebooks = {"01_a": make_notebook(), "02_b": make_notebook()}
    return make_clone(tmp_path, notebooks, {"01_a": entry("one", "two"), "02_b": entry()})


def reproducing(
    monkeypatch: pytest.MonkeyPatch, result: Report | BaseException | int
) -> list[tuple[Options, Layout]]:
    """Let `reproduce` end with `result`; return what it was called with."""
    calls: list[tuple[Options, Layout]] = []

    def reproduce(options: Options, layout: Layout) -> Report:
        calls.append((options, layout))
        if isinstance(result, BaseException):
            raise result
        if isinstance(result, int):
            os.kill(os.getpid(), result)  # and does not come back
        return GOOD if isinstance(result, int) else result

    monkeypatch.setattr(reproduce_module, "reproduce", reproduce)
    return calls


GOOD = Report(
    (
        Row("one", "01_a", "same", 12.345, "equal"),
        Row("two-long-name", "01_a", "changed", 0.5, "differ"),
    ),
    (),
)


def test_the_table_names_each_figure_with_its_status(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = reproducing(monkeypatch, GOOD)
    assert cli.main(["reproduce"], layout) == 0
    assert calls == [(Options(), layout)]
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "figure         notebook  status   seconds  committed data",
        "-------------  --------  -------  -------  --------------",
        "one            01_a      same     12.3     equal",
        "two-long-name  01_a      changed  0.5      differ",
    ]


def test_every_option_arrives(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = reproducing(monkeypatch, GOOD)
    line = "reproduce --profile smoke --only one 02_b --jobs 3 --out there --cell-timeout 5"
    assert cli.main(line.split(), layout) == 0
    assert calls[0][0] == Options("smoke", ("one", "02_b"), 3, Path("there"), 5.0)


def test_a_failure_is_told_and_the_exit_code_is_1(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (Row("one", "01_a", "failed", 1.0, "none"),)
    reproducing(monkeypatch, Report(rows, ("01_a: cell [2] '1 / 0': ZeroDivisionError",)))
    assert cli.main(["reproduce"], layout) == 1
    out, err = capsys.readouterr()
    assert "one     01_a      failed" in out
    assert err == "krratio: 01_a: cell [2] '1 / 0': ZeroDivisionError\n"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RegistryError("figures.yaml is wrong"), 2, "figures.yaml is wrong"),
        (OSError(28, "No space left on device", "x"), 1, "no room left to write x: No space left"),
        (PermissionError(13, "Permission denied", "x"), 1, "cannot write x: Permission denied"),
        (KeyboardInterrupt(), 130, "interrupted; what was not finished is as it was"),
        (int(signal.SIGTERM), 130, "interrupted; what was not finished is as it was"),
        (int(signal.SIGHUP), 130, "interrupted; what was not finished is as it was"),
    ],
)
def test_an_error_is_one_plain_line_with_its_own_exit_code(
    layout: Layout,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException | int,
    code: int,
    message: str,
) -> None:
    reproducing(monkeypatch, error)
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["reproduce"], layout) == code
    assert signal.getsignal(signal.SIGTERM) is before
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"krratio: {message}")
    assert err.count("\n") == 1


def test_the_list_shows_notebooks_and_figures_and_runs_nothing(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = reproducing(monkeypatch, GOOD)
    assert cli.main(["reproduce", "--list"], layout) == 0
    assert calls == []
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:5] == [
        "01_a              A chapter",
        "          one     Title of one",
        "          two     Title of two",
    ]


@pytest.mark.parametrize("line", ["", "draw", "reproduce --profile fast", "reproduce --jobs two"])
def test_a_wrong_command_line_shows_the_usage(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(line.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: krratio")


def test_the_module_and_the_command_are_the_same(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("krratio")
    helps = [
        subprocess.run([*start, "reproduce", "--help"], capture_output=True, text=True, check=True)
        for start in ([sys.executable, "-m", "krratio"], [str(command)])
    ]
    assert helps[0].stdout == helps[1].stdout
    for option in ("--profile", "--only", "--jobs", "--out", "--cell-timeout", "--list"):
        assert option in helps[0].stdout
