"""The doctor finds a sound installation sound, and names what is not."""

import json
from collections import namedtuple
from pathlib import Path

import pytest

from krratio import cli
from krratio.experiments import sources
from krratio.pipeline.doctoring import selftest, surroundings
from krratio.pipeline.layout import CLONE, Layout


def findings(capsys: pytest.CaptureFixture, layout: Layout = CLONE) -> tuple[int, dict]:
    code = cli.main(["doctor", "--json"], layout)
    return code, {found["name"]: found for found in json.loads(capsys.readouterr().out)}


def test_a_sound_installation_passes(capsys: pytest.CaptureFixture) -> None:
    code, found = findings(capsys)
    assert code == 0
    assert "failed" not in {one["level"] for one in found.values()}
    assert found["exact dimension"]["fact"] == "44, 44, 87, 87"
    assert found["rank modulo a prime"]["fact"] == "17"
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
