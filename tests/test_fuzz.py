"""Whatever a user or a damaged file says: a documented exception or exit code, and no traceback."""

import contextlib
import gzip
import io
import itertools
import json
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_files import write_cifar, write_cifar_tar, write_idx, write_parquet, write_svhn
from krratio import cli
from krratio.errors import KrratioError, NotebookError, RegistryError
from krratio.experiments.datasets import load
from krratio.pipeline import nbfile, reproduce
from krratio.pipeline.layout import Layout
from krratio.pipeline.registry import load_registry
from tiny_clone import entry, make_clone, make_notebook

few = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])

TEXTS = st.text(max_size=12)
ODD = st.sampled_from(
    ["", " ", "-", "--", "..", "/", "../x", "nan", "inf", "-1", "0", "1e999", "é"]
)


def said_by(arguments: list[str], layout: Layout | None = None) -> tuple[int, str]:
    """Run the command line; return its exit code and what it complained."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main(arguments, *([layout] if layout else []))
        except SystemExit as end:  # argparse: help, or wrong usage
            code = int(end.code or 0)
    return code, err.getvalue()


def is_documented(code: int, said: str) -> bool:
    """Whether an exit code is one of those of a mistake or of success, and says what is wrong."""
    told = re.search(r"krratio( \w+)?: (error: )?\S", said) is not None
    return code == 0 or (code in (1, 2) and told)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    names = {f"{i:02}_{name}": make_notebook("n") for i, name in enumerate(("one", "two"), start=1)}
    registry = {stem: entry(f"{stem[3:]}-line") for stem in names}
    return make_clone(tmp_path_factory.mktemp("clone"), names, registry)


WORDS = st.one_of(
    st.sampled_from(
        "--profile --only --jobs --out --cell-timeout --list --help --pro --o=x --jobs=-1 3 2.5"
        " --cell-timeout=nan quick full default 01_one one-line".split()
    ),
    ODD,
    TEXTS,
)


@few
@given(words=st.lists(WORDS, max_size=6))
def test_any_command_line_of_reproduce(words: list[str], clone: Layout) -> None:
    """Notebooks are planned but not run; --out of a random name may not be written elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce, "_run", lambda *_: None)
        patch.chdir(clone.root)
        code, said = said_by(["reproduce", *words], clone)
    assert is_documented(code, said), (code, said)


@few
@given(words=st.lists(WORDS, max_size=6), command=st.sampled_from(["records", "doctor", "verify"]))
def test_any_command_line_of_the_others(words: list[str], command: str, clone: Layout) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone.root)
        patch.setattr("krratio.commands.doctor._findings", lambda _: iter(()))
        code, said = said_by([command, *words], clone)
    assert is_documented(code, said), (code, said)


MODELS = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 16, 1), nn.Flatten(1), nn.Linear(576, 2))

number = 3
"""
SPECS = st.one_of(
    st.sampled_from(
        "mine:net mine:number mine:absent mine: :net mine mine:net:net absent:net mine.py:net"
        " mine:net.forward mine:__name__ os:system sys:exit mine:nn torch.nn:Linear".split()
    ),
    TEXTS,
)
SHAPES = st.one_of(
    st.sampled_from("3,8,8 3 3,8 0,8,8 -3,8,8 3,,8 3,8,8,8 1e9,8,8 99999999999,8,8 ids:3".split()),
    TEXTS,
)
OPTIONS = st.lists(
    st.sampled_from(
        "--sort ratio --weights mine.py absent.pt --help --json --csv . /no/where".split()
    )
    | ODD
    | TEXTS,
    max_size=4,
)


@few
@given(spec=SPECS, shape=SHAPES, options=OPTIONS)
def test_any_model_and_input_of_an_audit(
    spec: str, shape: str, options: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("audit")
    (folder / "mine.py").write_text(MODELS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        sys.modules.pop("mine", None)
        code, said = said_by(["audit", spec, "--input", shape, *options])
    assert is_documented(code, said), (code, said)


def checkpoint() -> bytes:
    file = io.BytesIO()
    torch.save({"0.weight": torch.zeros(4, 3, 3, 3), "0.bias": torch.zeros(4)}, file)
    return file.getvalue()


CHECKPOINT = checkpoint()


def damaged(content: bytes, places: list[tuple[float, int]], end: float) -> bytes:
    """Other bytes at some places, and the end cut off."""
    hurt = bytearray(content)
    for place, value in places:
        hurt[int(place * len(hurt))] = value
    return bytes(hurt[: max(1, int(end * len(hurt)))])


PLACES = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4
)
ENDS = st.just(1.0) | st.floats(0, 1)


@few
@given(places=PLACES, end=ENDS, name=st.sampled_from(["w.pt", "w.safetensors", "w"]))
def test_any_bytes_as_weights(
    places: list[tuple[float, int]],
    end: float,
    name: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("weights")
    (folder / "mine.py").write_text(MODELS)
    (folder / name).write_bytes(damaged(CHECKPOINT, places, end))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        sys.modules.pop("mine", None)
        code, said = said_by(["audit", "mine:net", "--input", "3,8,8", "--weights", name])
    assert code == 2
    assert is_documented(code, said), said
    assert name in said


WRITERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "idx": ("fashion-mnist", lambda folder: write_idx(folder, zipped=False)),
    "idx.gz": ("fashion-mnist", write_idx),
    "batches": ("cifar10", write_cifar),
    "tar": ("cifar10", write_cifar_tar),
    "mat": ("svhn", write_svhn),
    "parquet": ("cifar10", write_parquet),
}


@pytest.mark.parametrize("kind", WRITERS)
@few
@given(places=PLACES, end=ENDS, which=st.integers(0, 4))
def test_any_bytes_in_a_data_file(
    kind: str,
    places: list[tuple[float, int]],
    end: float,
    which: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Read, where only pixels changed, or refused; never anything but a documented exception."""
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="the extra krratio[parquet] is not installed")
    name, write = WRITERS[kind]
    folder = tmp_path_factory.mktemp("data")
    write(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    victim = files[which % len(files)]
    content = victim.read_bytes()
    if kind == "idx.gz":  # damage what is inside too, or its checksum always catches it
        victim.write_bytes(gzip.compress(damaged(gzip.decompress(content), places, end)))
    else:
        victim.write_bytes(damaged(content, places, end))
    with contextlib.suppress(KrratioError):
        data = load(name, root=folder, download=False)
        assert len(data.images) == len(data.labels)
        assert data.labels.max(initial=0) <= 9


NOTEBOOK = nbfile.to_text(make_notebook("n", "print(n)")).encode()


@few
@given(places=PLACES, end=ENDS)
def test_any_bytes_in_a_notebook(places, end, tmp_path_factory: pytest.TempPathFactory) -> None:
    is_read_or_refused(damaged(NOTEBOOK, places, end), tmp_path_factory)


@few
@given(place=st.integers(0, len(NOTEBOOK) - 1), bit=st.integers(0, 7))
def test_any_bit_of_a_notebook(place, bit, tmp_path_factory: pytest.TempPathFactory) -> None:
    hurt = bytearray(NOTEBOOK)
    hurt[place] ^= 1 << bit
    is_read_or_refused(bytes(hurt), tmp_path_factory)


def is_read_or_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path, said = tmp_path_factory.mktemp("notebook") / "one.ipynb", "one.ipynb"
    path.write_bytes(content)
    try:
        nbfile.read(path)
    except NotebookError as error:
        said = str(error)
    assert "one.ipynb" in said


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["title", "figures", "profiles", "quick", "default", "01_one"]) | TEXTS,
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@few
@given(content=st.dictionaries(st.just("01_one") | TEXTS, VALUES, max_size=3) | VALUES)
def test_any_structure_in_the_registry(content: object, clone: Layout) -> None:
    text = yaml.safe_dump(content)
    is_refused(clone, text.encode("utf-8", "surrogatepass"))


CELLS = st.dictionaries(
    st.sampled_from(["cell_type", "source", "outputs", "metadata", "id", "execution_count"]),
    st.sampled_from(["code", "markdown"]) | VALUES,
    max_size=4,
)


@few
@given(
    cells=st.lists(CELLS, max_size=2) | VALUES,
    metadata=VALUES,
    version=st.just(4) | LEAVES,
    minor=st.integers(0, 6) | LEAVES,
)
def test_any_structure_in_a_notebook(
    cells, metadata, version, minor, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = {"nbformat": version, "nbformat_minor": minor, "metadata": metadata, "cells": cells}
    is_read_or_refused(json.dumps(content).encode(), tmp_path_factory)


@few
@given(content=st.binary(max_size=60))
def test_any_bytes_in_the_registry(content: bytes, clone: Layout) -> None:
    is_refused(clone, content)


@few
@given(seed=st.integers(0, 2**32), times=st.integers(1, 3))
def test_any_typing_error_in_the_registry(seed: int, times: int, clone: Layout) -> None:
    """A character more, less or other than in a registry that is right."""
    draw, text = random.Random(seed), GOOD
    for _ in range(times):
        at = draw.randrange(len(text))
        other = draw.choice("\t:-[]{}&*!|>'\"%@`#, é0a")
        text = text[:at] + draw.choice(["", other, other + text[at]]) + text[at + 1 :]
    is_refused(clone, text.encode())


GOOD = yaml.safe_dump({"01_one": entry("one-line"), "02_two": entry("two-line")})


def is_refused(clone: Layout, content: bytes) -> None:
    """Either read, or a RegistryError that names the file."""
    before, said = clone.registry.read_bytes(), "figures.yaml"
    clone.registry.write_bytes(content)
    try:
        load_registry(clone)
    except RegistryError as error:
        said = str(error)
    finally:
        clone.registry.write_bytes(before)
    assert "figures.yaml" in said


def test_the_fuzzed_registry_is_right_without_an_error(clone: Layout) -> None:
    stems = [chapter.stem for chapter in load_registry(clone).chapters]
    assert stems == ["01_one", "02_two"]
    assert list(itertools.chain(*(c.figures for c in load_registry(clone).chapters))) == [
        "one-line",
        "two-line",
    ]
