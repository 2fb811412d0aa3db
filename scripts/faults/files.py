"""Faults of files: cut off, or with one bit turned."""

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.random import Generator

from faults import Fault, Inject, Outcome
from faults.clock import going_back
from faults.clones import Found, committed, fresh, reproduce, undisturbed
from faults.store import LIMITED
from krratio.errors import KrratioError
from krratio.experiments import datasets, locate, sources
from krratio.pipeline.doctoring.committed import figures, recorded
from krratio.pipeline.layout import Layout
from krratio.pipeline.records import seal

__all__ = ["FAULTS"]

Damage = Callable[[bytes, Generator], bytes]


def flip(content: bytes, generator: Generator) -> bytes:
    """Turn one bit."""
    place, bit = int(generator.integers(len(content))), int(generator.integers(8))
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def cut(content: bytes, generator: Generator) -> bytes:
    """Leave off the end, one byte or more."""
    return content[: int(generator.integers(len(content)))]


def _finished(folder: Path) -> Layout:
    """Return the small clone, with its figures made."""
    layout = fresh(folder)
    code, said = reproduce(layout)
    if code:
        raise RuntimeError(f"the small clone fails undisturbed, exit code {code}:\n{said}")
    return layout


def damaged_clone(pattern: str, damage: Damage) -> Inject:
    """Damage a file of a finished clone: it is named, or the next run makes it whole again.

    Named is by the run with an exit code that is not 0, or by the doctor: the file, or the
    notebook whose figures were made from other sources, if it is a change that a user could have
    made, of a word in a notebook.
    """

    def inject(folder: Path, times: int, generator: Generator) -> Outcome:
        whole = _finished(folder / "whole")
        files = sorted(whole.root.glob(pattern))
        named = healed = wrong = 0
        for turn in range(times):
            layout = Layout(folder / str(turn))
            shutil.copytree(whole.root, layout.root)
            victim = files[int(generator.integers(len(files)))].relative_to(whole.root)
            content = (layout.root / victim).read_bytes()
            (layout.root / victim).write_bytes(damage(content, generator))
            is_named = figures(layout).level != "ok"
            code, said = reproduce(layout)
            is_named |= code != 0 and victim.stem in said
            is_whole = Found.of(committed(layout), undisturbed().after) == Found((), (), ())
            wrong += "Traceback" in said or not (is_named or is_whole)
            named += is_named
            healed += is_whole and not is_named
            shutil.rmtree(layout.root)
        said = f"{named} named, {healed} not: there the next run left the file as it must be"
        return Outcome(times, 0, 0, wrong, said)

    return inject


def damaged_images(folder: Path, times: int, generator: Generator) -> Outcome:
    """Turn a bit of the embedded images or cut their file: loading them must name it."""
    content, wrong = sources.EMBEDDED.read_bytes(), 0
    path = folder / "images.npz"
    with mock.patch.object(sources, "EMBEDDED", path):
        for turn in range(times):
            path.write_bytes((flip, cut)[turn % 2](content, generator))
            try:
                datasets.load("fashion-mnist-subset", "test")
                wrong += 1
            except KrratioError as error:
                wrong += str(path) not in str(error)
    return Outcome(times, 0, 0, wrong, "refused, naming the file: another SHA-256")


def damaged_cache(folder: Path, times: int, generator: Generator) -> Outcome:
    """Turn a bit of a data set in the cache or cut its file: loading it must name it."""
    found = datasets.find("fashion-mnist", "test")
    if not found:
        return Outcome(0, 0, 0, 0, "not injected: Fashion-MNIST is not on this machine")
    wrong = 0
    with mock.patch.object(locate, "CACHE", folder):
        for path in found:
            shutil.copy(path, folder)
        datasets.load("fashion-mnist", "test", download=False)  # whole, it is read
        for turn in range(times):
            path = folder / found[int(generator.integers(len(found)))].name
            content = path.read_bytes()
            path.write_bytes((flip, cut)[turn % 2](content, generator))
            try:
                datasets.load("fashion-mnist", "test", download=False)
                wrong += 1
            except KrratioError as error:
                wrong += str(path) not in str(error)
            path.write_bytes(content)
    return Outcome(times, 0, 0, wrong, "refused, naming the file: another SHA-256")


def damaged_record(folder: Path, times: int, generator: Generator) -> Outcome:
    """Turn a bit of a recorded table or cut it: the doctor must name it."""
    layout, wrong = Layout(folder), 0
    table = layout.data / "results" / "numbers.csv"
    table.parent.mkdir(parents=True)
    values = generator.normal(size=(200, 4))
    np.savetxt(table, values, delimiter=",", header="a,b,c,d", comments="")
    seal("numbers", {"seed": 0}, [table.name], layout, code="made here")
    content = table.read_bytes()
    for turn in range(times):
        table.write_bytes((flip, cut)[turn % 2](content, generator))
        found = recorded(layout)
        wrong += found.level != "failed" or "numbers.csv is changed" not in found.fact
    return Outcome(times, 0, 0, wrong, "named: not the file that was sealed")


def no_room(folder: Path, times: int, generator: Generator) -> Outcome:
    """Let no file of a run grow beyond some size; then run again with room."""
    lost = doubled = wrong = injected = 0
    for turn in range(times):
        layout = fresh(folder / str(turn))
        before = committed(layout)
        size = int(generator.integers(100, 2_500))
        code, said = reproduce(layout, prefix=(sys.executable, "-c", LIMITED, str(size)))
        injected += code != 0
        first = Found.of(committed(layout), before, undisturbed().after)
        wrong += "Traceback" in said
        code, _ = reproduce(layout)
        second = Found.of(committed(layout), undisturbed().after)
        wrong += code != 0
        for found in (first, second):
            lost, doubled = lost + len(found.lost), doubled + len(found.doubled)
            wrong += len(found.wrong)
    said = "no file was half written; with room, the next run made what was missing"
    return Outcome(injected, lost, doubled, wrong, said)


def clock_goes_back(folder: Path, times: int, _generator: Generator) -> Outcome:
    """Let the wall clock of every process jump back by an hour while notebooks run."""
    environment = going_back(folder / "patch", after=1)
    lost = doubled = wrong = 0
    for turn in range(times):
        layout = fresh(folder / str(turn))
        code, _ = reproduce(layout, environment=environment)
        found = Found.of(committed(layout), undisturbed().after)
        lost, doubled = lost + len(found.lost), doubled + len(found.doubled)
        wrong += len(found.wrong) + (code != 0)
    return Outcome(times, lost, doubled, wrong, "all figures as in an undisturbed run")


def _both(name: str, target: str, pattern: str, often: tuple[int, int]) -> Sequence[Fault]:
    quick, thorough = often
    return (
        Fault(f"{name}-bit-flipped", target, "one bit", damaged_clone(pattern, flip), *often),
        Fault(
            f"{name}-truncated",
            target,
            "cut at a random byte",
            damaged_clone(pattern, cut),
            quick,
            max(1, thorough // 2),
        ),
    )


FAULTS: tuple[Fault, ...] = (
    *_both("notebook", "a notebook file", "notebooks/0*.ipynb", (2, 24)),
    *_both("figure", "a figure's file", "figures/*.*", (1, 12)),
    *_both("registry", "`figures.yaml`", "notebooks/figures.yaml", (1, 12)),
    Fault("images-damaged", "the embedded images", "one bit, or cut", damaged_images, 6, 100),
    Fault("cache-damaged", "a data set in the cache", "one bit, or cut", damaged_cache, 2, 40),
    Fault("record-damaged", "a recorded table", "one bit, or cut", damaged_record, 10, 200),
    Fault("no-room-for-figures", "`krratio reproduce`", "no file may grow", no_room, 1, 8),
    Fault(
        "clock-goes-back-in-a-reproduction",
        "the clock",
        "an hour back, a second after a process began",
        clock_goes_back,
        1,
        3,
    ),
)
