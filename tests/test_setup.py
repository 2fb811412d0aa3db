"""What make does to a clone, with stand-ins for Python and pip: no package is installed here.

A stand-in answers the few questions that scripts/setup.sh asks a Python, "creates" a .venv by
copying itself into it, and writes down how it was called.
"""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from krratio import paths

TOOLS = (
    "awk",
    "bash",
    "cat",
    "cksum",
    "cp",
    "dirname",
    "find",
    "ls",
    "make",
    "mkdir",
    "mv",
    "rm",
    "sh",
)
TOOLS += ("sleep", "true")

STAND_IN = """#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)/${{0##*/}}
case "$1 $2" in
"-c "*version_info*) echo {version} ;;
"-c "*ensurepip*) exit {lacks_venv} ;;
"-c "*_base_executable*) echo "$here" ;;
"-c ") ;;
*) echo "{version} $*${{JUPYTER_PATH:+ JUPYTER_PATH}}" >>"$CALLS" ;;
esac
case "$1 $2" in
"-m venv") mkdir "$3/bin" && cp "$here" "$3/bin/python" ;;
"-m pip") if [ -n "${{PIP:-}}" ]; then echo "no such package"; $PIP; fi ;;
esac
"""

PACKAGES = "-m pip --disable-pip-version-check install -r requirements.lock"
KIT = "-m pip --disable-pip-version-check install --no-deps --no-build-isolation -e ."


@dataclass
class Machine:
    """A folder of tools that is all of PATH, and a clone on it."""

    folder: Path

    def __post_init__(self) -> None:
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.clone = self.new_clone("a clone")

    def new_clone(self, name: str) -> Path:
        clone = self.folder / name
        (clone / "scripts").mkdir(parents=True)
        (clone / ".ci").mkdir()
        for part in ("Makefile", "scripts/setup.sh", ".ci/run"):
            shutil.copy(paths.ROOT / part, clone / part)
        (clone / "requirements.lock").write_text("numpy==2.4.6\n")
        (clone / "pyproject.toml").write_text("[project]\n")
        return clone

    def python(self, name: str, version: str, *, venv: bool = True) -> None:
        script = self.bin / name
        script.write_text(STAND_IN.format(version=version, lacks_venv=0 if venv else 1))
        script.chmod(0o755)

    def start(self, *command: str, clone: Path | None = None, **env: str) -> subprocess.Popen:
        clone = clone or self.clone
        settings = {"PATH": str(self.bin), "CALLS": str(clone / "calls"), **env}
        return subprocess.Popen(
            command or ("sh", "scripts/setup.sh"),
            cwd=clone,
            env=settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, clone: Path | None = None, **env: str) -> tuple[int, str, str]:
        process = self.start(*command, clone=clone, **env)
        out, err = process.communicate(timeout=30)
        return process.returncode, out, err

    def calls(self, clone: Path | None = None) -> list[str]:
        """What the stand-ins were asked to do since the last look."""
        log = (clone or self.clone) / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.fixture
def ready(machine):
    """A machine whose clone is set up with Python 3.12."""
    machine.python("python3", "3.12")
    assert machine.run()[0] == 0
    machine.calls()
    return machine


FROM_NOTHING = ["3.12 -m venv .venv", f"3.12 {PACKAGES}", f"3.12 {KIT}"]


def test_a_fresh_clone_gets_the_lock_and_then_the_kit(machine):
    machine.python("python3", "3.12")
    code, out, _ = machine.run()
    assert code == 0
    assert "(3.12)" in out
    assert machine.calls() == FROM_NOTHING
    assert not (machine.clone / ".venv.setup").exists()


def test_nothing_is_done_twice(ready):
    assert ready.run() == (0, "", "")
    assert ready.calls() == []


def test_a_changed_lock_makes_the_environment_anew(ready):
    (ready.clone / ".venv" / "left over").touch()
    (ready.clone / "requirements.lock").write_text("numpy==2.4.7\n")
    assert ready.run()[0] == 0
    assert ready.calls() == FROM_NOTHING
    assert not (ready.clone / ".venv" / "left over").exists()


def test_a_changed_project_file_installs_the_kit_alone(ready):
    (ready.clone / "pyproject.toml").write_text("[project]\nname = 'kit'\n")
    assert ready.run()[0] == 0
    assert ready.calls() == [f"3.12 {KIT}"]


def test_a_newer_date_on_the_same_lock_changes_nothing(ready):
    (ready.clone / "requirements.lock").touch()
    assert ready.run()[0] == 0
    assert ready.calls() == []


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_an_environment_made_elsewhere_is_made_anew(ready, how):
    other = ready.folder / "another clone"
    (shutil.move if how == "moved" else shutil.copytree)(ready.clone, other)
    assert ready.run(clone=other)[0] == 0
    assert ready.calls(other) == FROM_NOTHING


def test_an_environment_whose_python_is_gone_is_made_anew(ready):
    (ready.clone / ".venv/bin/python").unlink()
    assert ready.run()[0] == 0
    assert ready.calls() == FROM_NOTHING


def test_a_failed_install_is_told_and_started_over(machine):
    machine.python("python3", "3.12")
    code, _, err = machine.run(PIP="exit 1")
    assert code == 1
    assert "no such package" in err
    assert "pip could not install -r requirements.lock" in err
    machine.calls()
    assert machine.run()[0] == 0
    assert machine.calls() == FROM_NOTHING


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_install_is_started_over(machine, how):
    machine.python("python3", "3.12")
    process = machine.start(PIP="sleep 20")
    wait_for(machine.clone / "calls", PACKAGES)
    os.killpg(process.pid, how)
    process.communicate(timeout=10)
    assert process.returncode != 0
    assert (machine.clone / ".venv.setup").exists() == (how is signal.SIGKILL)
    machine.calls()
    assert machine.run()[0] == 0
    assert machine.calls() == FROM_NOTHING


def test_a_second_make_in_the_same_clone_is_refused_while_the_first_installs(machine):
    machine.python("python3", "3.12")
    first = machine.start(PIP="sleep 2")
    wait_for(machine.clone / "calls", PACKAGES)
    code, _, err = machine.run()
    assert code == 1
    assert f"another make (process {first.pid}) is setting up" in err
    first.communicate(timeout=10)
    assert first.returncode == 0
    assert machine.calls() == FROM_NOTHING


def test_two_clones_are_set_up_at_once(machine):
    machine.python("python3", "3.12")
    other = machine.new_clone("other")
    processes = [machine.start(clone=clone, PIP="sleep 1") for clone in (machine.clone, other)]
    for process in processes:
        process.communicate(timeout=20)
        assert process.returncode == 0
    assert machine.calls() == machine.calls(other) == FROM_NOTHING


def test_an_environment_that_make_did_not_create_is_left_alone(machine):
    machine.python("python3", "3.12")
    (machine.clone / ".venv").mkdir()
    (machine.clone / ".venv" / "mine").touch()
    code, _, err = machine.run()
    assert code == 1
    assert "was not made by this Makefile; move it away or delete it" in err
    assert (machine.clone / ".venv" / "mine").exists()


def test_the_first_suitable_python_is_taken(machine):
    machine.python("python3", "3.10")
    machine.python("python3.11", "3.11", venv=False)
    machine.python("python3.13", "3.13")
    machine.python("python3.14", "3.14")
    assert machine.run()[0] == 0
    assert machine.calls()[0] == "3.13 -m venv .venv"


@pytest.mark.parametrize(
    ("pythons", "message"),
    [
        ({}, "needs Python 3.11 to 3.14 on PATH, found: none"),
        ({"python3": "3.9"}, "found: python3=3.9. Install one, or name it: make PYTHON="),
        ({"python3": "3.15"}, "found: python3=3.15"),
    ],
)
def test_no_suitable_python_is_told(machine, pythons, message):
    for name, version in pythons.items():
        machine.python(name, version)
    code, _, err = machine.run()
    assert code == 1
    assert message in err
    assert not (machine.clone / ".venv").exists()


def test_a_python_without_venv_is_told_with_the_package_that_brings_it(machine):
    machine.python("python3", "3.12", venv=False)
    code, _, err = machine.run()
    assert code == 1
    assert "python3 (3.12) lacks the modules venv and ensurepip" in err
    assert "python3.12-venv" in err


def test_a_python_can_be_named(ready):
    ready.python("python3.11", "3.11")
    assert ready.run("make", "figures", "PYTHON=python3.11")[0] == 0
    assert ready.calls()[0] == "3.11 -m venv .venv"
    assert ready.run("make", "figures", "PYTHON=python3.11")[0] == 0
    assert ready.calls() == ["3.11 -m krratio reproduce"]
    assert ready.run("make", "figures")[0] == 0
    assert ready.calls() == ["3.11 -m krratio reproduce"]


@pytest.mark.parametrize(
    ("version", "message"),
    [("3.10", "PYTHON=old is Python 3.10, needed is 3.11 to 3.14"), (None, "old does not run")],
)
def test_a_named_python_that_does_not_fit_is_refused_and_nothing_is_lost(ready, version, message):
    if version:
        ready.python("old", version)
    code, _, err = ready.run(PYTHON="old")
    assert code == 1
    assert message in err
    assert ready.run() == (0, "", "")


def test_make_figures_reproduces_with_the_arguments_given(ready):
    code, _, _ = ready.run("make", "figures", "ARGS=--only 01", JUPYTER_PATH="/elsewhere")
    assert code == 0
    assert ready.calls() == ["3.12 -m krratio reproduce --only 01"]


def test_the_ci_command_runs_pytest_and_nbval_once_there_are_notebooks(ready):
    first = (
        "3.12 -m pytest -n auto --maxprocesses=8 --dist worksteal"
        " --cov --cov-report=term --cov-fail-under=95"
    )
    assert ready.run(".ci/run", JUPYTER_PATH="/elsewhere")[0] == 0
    assert ready.calls() == [first]
    (ready.clone / "notebooks").mkdir()
    (ready.clone / "notebooks/01.ipynb").touch()
    assert ready.run(".ci/run")[0] == 0
    again, second = ready.calls()
    assert again == first
    assert second.startswith("3.12 -m pytest --nbval --nbval-current-env --nbval-cell-timeout=")


def test_help_lists_every_target(machine):
    _, out, _ = machine.run("make", "help")
    makefile = (paths.ROOT / "Makefile").read_text()
    phony = makefile.split(".PHONY:")[1].splitlines()[0].split()
    assert [line.split()[1] for line in out.splitlines()] == phony
    assert machine.run("make") == (0, out, "")


def test_clean_removes_what_make_created_and_nothing_else(ready):
    (ready.clone / "figures").mkdir()
    (ready.clone / "figures/one.csv").touch()
    assert ready.run("make", "clean")[0] == 0
    left = {path.name for path in ready.clone.iterdir()}
    assert left == {"Makefile", "scripts", ".ci", "requirements.lock", "pyproject.toml", "figures"}
    assert (ready.clone / "figures/one.csv").exists()


def test_clean_leaves_an_environment_that_make_did_not_create(machine):
    (machine.clone / ".venv").mkdir()
    assert machine.run("make", "clean")[0] == 0
    assert (machine.clone / ".venv").exists()


def test_what_an_interrupted_removal_left_behind_is_removed(machine):
    machine.python("python3", "3.12")
    for name in (".venv.old", ".venv.new"):
        (machine.clone / name / "bin").mkdir(parents=True)
    assert machine.run()[0] == 0
    assert machine.calls() == FROM_NOTHING
    assert [path.name for path in machine.clone.glob(".venv*")] == [".venv"]


def wait_for(log: Path, text: str) -> None:
    for _ in range(200):
        if log.exists() and text in log.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"{text!r} did not appear in {log}")
