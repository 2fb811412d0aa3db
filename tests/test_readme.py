"""The README: every command that it shows runs, every file that it names exists."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from krratio.paths import ROOT
from krratio.pipeline.layout import CLONE
from krratio.pipeline.registry import load_registry

BIN = Path(sys.executable).parent  # of the environment that runs the tests

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for language, text in BLOCKS
    if language == "sh"
    for line in text.splitlines()
]
INLINE = re.findall(r"`((?:make|conda|pip|python|krratio) [^`]+)`", README)


def test_the_two_commands_come_first():
    assert COMMANDS[:2] == ["make figures", "make test"]


@pytest.mark.parametrize(
    "command", sorted({c for c in (*COMMANDS, *INLINE) if c.startswith("make ")})
)
def test_make_commands_name_targets(command):
    """They are what runs this test; make itself says whether the target exists."""
    subprocess.run(
        ["make", "--dry-run", *shlex.split(command)[1:]], cwd=ROOT, check=True, capture_output=True
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith("make ")])
def test_shell_commands_run(command):
    (ROOT / "runs").mkdir(exist_ok=True)
    done = subprocess.run(
        shlex.split(command.replace(".venv/bin", str(BIN))),
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_library_example_runs_and_prints_what_it_says(capsys):
    (code,) = (text for language, text in BLOCKS if language == "python")
    exec(compile(code, "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert "kind='tucker'" in said
    assert "ranks=(2, 4)" in said
    assert "torch.Size([10, 3, 32, 32])" in said


@pytest.mark.parametrize(
    ("script", "options", "said"),
    [
        ("benchmarks/patches.py", "--images 50 --repeats 1", "krratio / copy"),
        ("benchmarks/exact_dimension.py", "--largest 1000", "growth exponents"),
        (
            "benchmarks/estimators.py",
            "--threads 1 2 --samples 2000 --draws 2 --starts 2 --fits 1 --cases 0",
            "worse losses: 0",
        ),
        ("benchmarks/audit.py", "--networks convnext --repeats 1", "krratio_MB"),
        ("benchmarks/decompositions.py", "--sizes 16 24 --repeats 1", "peer_over_ours"),
        ("benchmarks/sweeps.py", "--tasks 200 --workers 1 --memory 200", "beyond Dask's own"),
    ],
)
def test_the_benchmarks_that_are_named_run(script, options, said):
    assert f"python {script}" in INLINE
    command = [sys.executable, script, *options.split()]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_the_benchmark_table_holds_the_recorded_numbers():
    recorded = pd.read_csv(ROOT / "benchmarks/results/exact_dimension.csv")
    large = recorded[recorded["parameters"] > 2000]
    ratios = large[["rank_over_svd", "whole_over_svd"]].map(
        lambda ratio: "–" if pd.isna(ratio) else f"{ratio:.2f}"
    )
    for row, (rank, whole) in zip(large.itertuples(), ratios.to_numpy(), strict=True):
        sizes = f"{row.parameters:,} | {row.dimension:,} | {row.whole_s:.1f} s"
        assert f"| {row.network} | {sizes} | {rank} | {whole} |" in README


def test_the_table_of_least_squares_holds_the_recorded_numbers():
    recorded = pd.read_csv(ROOT / "benchmarks/results/estimators.csv")
    for row in recorded.itertuples():
        times = f"{row.seconds:.1f} s | {row.peer_s:,.0f} s | {row.ratio:.0f} |"
        assert f"| {row.peer} | {row.threads} | {times}" in README
    assert (recorded["worst_loss"] <= 0).all()


def test_the_table_of_audits_holds_the_recorded_numbers():
    for row in pd.read_csv(ROOT / "benchmarks/results/audit.csv").itertuples():
        values = f"{row.krratio_s:.2f} s | {row.seconds_ratio:.2f} | {row.krratio_MB:.0f} MB |"
        assert f"| {row.network} | {row.parameters:,} | {values}" in README


def test_the_table_of_sweeps_holds_the_recorded_numbers():
    recorded = pd.read_csv(ROOT / "benchmarks/results/sweeps.csv")
    for row in recorded.itertuples():
        assert f"| {row.workers} | {row.sweep:,.0f} | {row.dask:,.0f} | {row.ratio:.1f} |" in README
    assert recorded.set_index("workers").loc[2, "sweep"] >= 500
    memory = pd.read_csv(ROOT / "benchmarks/results/sweeps-memory.csv")["driver_MB"]
    assert memory.max() < 1.05 * memory[1]
    costs = pd.read_csv(ROOT / "benchmarks/results/sweeps-costs.csv").set_index("what")["ms"]
    assert costs["task of 0.3 s, beyond Dask's own"] <= 5


def test_inline_commands_are_known():
    """What cannot run in a test is listed here, with what else checks it."""
    checked_elsewhere = {
        "conda env create -f environment.yml",  # its schema: test_environment.py
        "conda activate krratio",  # the name: test_environment.py
        "pip install --no-deps -e .",  # every set-up does it
        "python benchmarks/patches.py",  # above
        "python benchmarks/exact_dimension.py",  # above
        "python benchmarks/estimators.py",  # above
        "python benchmarks/audit.py",  # above
        "python benchmarks/decompositions.py",  # above
        "python benchmarks/sweeps.py",  # above
        "krratio audit MODULE:CALLABLE",  # one of its kind above, and test_audit_command.py
    }
    gallery = "krratio reproduce --only "  # below, and one of its kind above
    others = {c for c in INLINE if not c.startswith(("make ", gallery))}
    assert others == checked_elsewhere


def test_every_linked_file_exists():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_gallery_lists_every_figure_with_the_command_that_makes_it():
    registry = load_registry(CLONE)
    shown = re.findall(r"figures/([a-z0-9-]+)\.png\" width", README)
    named = [c.rsplit(" ", 1)[1] for c in INLINE if c.startswith("krratio reproduce --only ")]
    assert shown == named == [f for chapter in registry.chapters for f in chapter.figures]
    for figure_id in named:
        (chapter,) = registry.select([figure_id])
        assert figure_id in chapter.figures
