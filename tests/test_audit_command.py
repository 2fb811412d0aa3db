"""``krratio audit``: what it prints, writes, shows and refuses."""

import json
import os
import pty
import re
import select
import stat
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import torch
from torch import nn

import krratio as kr
from krratio import cli
from krratio.auditing.errors import ModelError
from krratio.auditing.reports.load import load_weights
from krratio.errors import MissingExtraError

MINE = """
from torch import nn

def net():
    convs = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 16, 1)
    return nn.Sequential(*convs, nn.Flatten(1), nn.Linear(576, 2))

def words():
    return nn.Sequential(nn.Embedding(20, 6), nn.Linear(6, 2))

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 5)

    def forward(self, left, right):
        return self.head(left) + right

def broken():
    raise RuntimeError("no luck")

def leaving():
    raise SystemExit(3)

def red():
    net = nn.Sequential()
    net.add_module("\\x1b[31mred", nn.Conv2d(3, 4, 3))
    return net
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


def test_the_command_writes_what_it_was_asked_for(mine: Path):
    files = "--html", "a.html", "--json", "a.json", "--csv", "a.csv", "--sort", "ratio"
    command = [sys.executable, "-m", "krratio", "audit", "mine:net", "--input", "3,8,8", *files]
    done = subprocess.run(command, cwd=mine, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "expansion_block, K/R = 4: exact" in done.stdout
    assert {p.name for p in mine.glob("a.*")} == {"a.html", "a.json", "a.csv"}


STATE = {
    "0.weight": torch.full((4, 3, 3, 3), 0.5),
    "0.bias": torch.zeros(4),
    "1.weight": torch.zeros(16, 4, 1, 1),
    "1.bias": torch.zeros(16),
    "3.weight": torch.zeros(2, 576),
    "3.bias": torch.zeros(2),
}
OPTIONS = ["audit", "mine:net", "--input", "3,8,8", "--weights"]


class Evil:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return (Path("ran").touch, ())


def write_safetensors(path: Path, state: dict[str, torch.Tensor]) -> None:
    """By hand: eight bytes of length, a header in JSON, the numbers."""
    header, body = {}, b""
    for name, tensor in state.items():
        raw = tensor.numpy().tobytes()
        ends = [len(body), len(body) + len(raw)]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": ends}
        body += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def test_a_checkpoint_is_read_as_plain_tensors(mine: Path, capsys):
    torch.save(STATE, mine / "good.pt")
    torch.save({"state_dict": STATE, "epoch": 3}, mine / "nested.pt")
    for name in ("good.pt", "nested.pt"):
        assert cli.main([*OPTIONS, name]) == 0
    assert "exact" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (STATE | {"3.bias": torch.zeros(5)}, "does not fit.*size mismatch for 3.bias"),
        (dict(list(STATE.items())[1:]), 'does not fit.*Missing key.*"0.weight"'),
        (STATE | {"9.bias": torch.zeros(5)}, 'does not fit.*Unexpected key.*"9.bias"'),
        ([1, 2], "does not fit.*dict"),
        ({"model": Evil()}, "loading would run code, which is refused; save model.state_dict"),
        ({"model": nn.Linear(2, 2)}, "loading would run code"),
    ],
)
def test_a_checkpoint_that_holds_code_or_does_not_fit_is_refused(mine, capsys, content, said):
    torch.save(content, mine / "bad.pt")
    assert cli.main([*OPTIONS, "bad.pt"]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error)
    assert len(error.strip().splitlines()) == 1
    assert not (mine / "ran").exists()


def test_a_checkpoint_that_is_missing_or_damaged_is_refused(mine: Path, capsys):
    assert cli.main([*OPTIONS, "no.pt"]) == 2
    assert "no.pt cannot be read: there is no such file" in capsys.readouterr().err
    (mine / "cut.pt").write_bytes(b"PK\x03\x04 cut off")
    assert cli.main([*OPTIONS, "cut.pt"]) == 2
    assert "cut.pt cannot be read as plain tensors" in capsys.readouterr().err


def test_safetensors_are_read_with_their_package(mine: Path):
    pytest.importorskip("safetensors", reason="the package safetensors is not installed")
    write_safetensors(mine / "good.safetensors", STATE)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 16, 1), nn.Flatten(), nn.Linear(576, 2))
    load_weights(model, mine / "good.safetensors")
    assert torch.equal(model[0].weight, STATE["0.weight"])
    (mine / "cut.safetensors").write_bytes((mine / "good.safetensors").read_bytes()[:99])
    with pytest.raises(ModelError, match=r"cut\.safetensors is no whole safetensors file"):
        load_weights(model, mine / "cut.safetensors")


def test_safetensors_without_their_package_name_it(mine: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    write_safetensors(mine / "good.safetensors", STATE)
    with pytest.raises(MissingExtraError, match="pip install safetensors"):
        load_weights(nn.Linear(2, 2), mine / "good.safetensors")


@pytest.mark.parametrize(
    ("target", "shape", "said"),
    [
        ("mine:nothing", "3,8,8", "cannot be imported"),
        ("mine:broken", "3,8,8", "no luck"),
        ("mine:leaving", "3,8,8", "raises when it is called: SystemExit: 3"),
        ("mine:net", "3,9999999999,9999999999", "(3, 9999999999, 9999999999): fewer than 2**60"),
        ("mine:net", "long:3,99999999999,99999999999", "99999999999): fewer than 2**60"),
        ("mine:net", "3,12345678901234567890123", "12345678901234567890123): fewer than 2**60"),
        ("mine", "3,8,8", "MODULE:CALLABLE is needed"),
        ("mine:MINE", "3,8,8", "cannot be imported"),
        ("mine:nn.functional.math.pi", "3,8,8", "is a float"),
        ("mine:net", "3,x", "--input '3,x'"),
        ("mine:net", "log:3", "long, int, bool"),
        ("mine:net", "nope=3,8,8", "nope=(3, 8, 8)"),
        ("mine:words", "7", "on the command line --input long:77"),
        ("mine:net", "5,8,8", "module '0' (Conv2d)"),
        ("mine:net", "3,-8,8", "positive integers"),
    ],
)
def test_what_a_user_gets_wrong_is_said_in_one_line(mine: Path, capsys, target, shape, said):
    assert cli.main(["audit", target, "--input", shape]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""
    assert len(err.strip().splitlines()) == 1


def test_names_with_control_characters_are_written_out(mine: Path, capsys):
    assert cli.main(["audit", "mine:red", "--input", "3,8,8"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"\x1b[31mred" in out


def test_inputs_have_types_and_names(mine: Path, capsys):
    assert cli.main(["audit", "mine:words", "--input", "long:7"]) == 0
    assert "84 multiply-adds" in capsys.readouterr().out
    named = ["--input", "right=half:5", "--input", "left=3"]
    assert cli.main(["audit", "mine:Two", *named]) == 0
    assert "15 multiply-adds" in capsys.readouterr().out
    assert cli.main(["audit", "mine:Two", "--input", "left=3", "--input", "5"]) == 2
    assert "either each input has a name of its own" in capsys.readouterr().err


def test_a_file_has_the_permissions_of_any_other_and_an_error_names_it(mine: Path, capsys):
    (mine / "other").touch()
    assert cli.main(["audit", "mine:net", "--input", "3,8,8", "--csv", "a.csv"]) == 0
    modes = [stat.S_IMODE((mine / name).stat().st_mode) for name in ("other", "a.csv")]
    assert modes[0] == modes[1]
    assert cli.main(["audit", "mine:net", "--input", "3,8,8", "--csv", "no/a.csv"]) == 1
    assert "cannot write no/a.csv" in capsys.readouterr().err


@pytest.mark.parametrize("terminal", [True, False])
def test_modules_are_counted_on_a_terminal_and_nowhere_else(mine: Path, terminal):
    command = [sys.executable, "-m", "krratio", "audit", "mine:net", "--input", "3,8,8"]
    ours, theirs = pty.openpty() if terminal else os.pipe()
    if terminal:
        termios.tcsetwinsize(theirs, (24, 80))
    done = subprocess.run(command, cwd=mine, stdout=subprocess.PIPE, stderr=theirs, check=True)
    shown = b""
    while select.select([ours], [], [], 0.5)[0]:
        shown += os.read(ours, 4096)
    os.close(theirs)
    os.close(ours)
    assert b"exact" in done.stdout
    assert (b"/5 [" in shown) is terminal  # modules entered, of all
    assert terminal or shown == b""


def test_progress_goes_through_all_modules_once():
    seen: list[tuple[int, int]] = []
    twice = nn.Linear(3, 3)
    model = nn.Sequential(twice, nn.ReLU(), twice)
    kr.audit(model, (3,), progress=lambda entered, whole: seen.append((entered, whole)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
