"""The command ``krratio audit``."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from krratio.auditing.audit import Audit, audit
from krratio.auditing.errors import ModelError
from krratio.auditing.printable import printable
from krratio.auditing.reports.load import build, load_weights
from krratio.auditing.walking.inputs import inputs_of
from krratio.auditing.walking.walk import Progress
from krratio.writing import write_text

__all__ = ["run"]

_SHORT = ("name", "kind", "K", "R", "ratio", "params", "redundancy")
_DTYPES = {
    "long": torch.long,
    "int": torch.int,
    "bool": torch.bool,
    "half": torch.half,
    "bfloat16": torch.bfloat16,
    "float": torch.float,
    "double": torch.double,
}


def run(options: argparse.Namespace) -> str:
    """Audit, write the files that were asked for, and return what is to be printed."""
    inputs = _inputs(options.input)
    model = build(options.target)
    if options.weights is not None:
        load_weights(model, options.weights)
    with _bar(model) as bar:
        found = audit(model, inputs, progress=None if bar.disable else _moving(bar))
    if options.html is not None:
        found.to_html(options.html)
    if options.json is not None:
        write_text(options.json, found.to_json() + "\n")
    if options.csv is not None:
        write_text(options.csv, found.to_frame().to_csv(index=False, lineterminator="\n"))
    return f"{_table(found, options.sort)}\n\n{found.summary()}"


def _bar(model: nn.Module) -> "tqdm[NoReturn]":
    """Modules entered, of all, where stderr is a terminal."""
    whole = sum(1 for _ in model.modules())
    return tqdm(total=whole, unit="module", disable=None, leave=False, ncols=80, file=sys.stderr)


def _moving(bar: "tqdm[NoReturn]") -> Progress:
    def move(entered: int, _whole: int) -> None:
        bar.update(entered - bar.n)

    return move


def _inputs(texts: Sequence[str]) -> list[Any] | dict[str, Any]:
    """Arguments by position, or by name where all have one."""
    pairs = [text.rpartition("=") for text in texts]
    named = [name for name, equals, _ in pairs if equals]
    if not named:
        return [_input(text, text) for text in texts]
    if len(set(named)) < len(texts) or "" in named:
        raise ModelError(
            f"--input {' --input '.join(texts)}: either each input has a name of its own, such as "
            "image=3,224,224, or none has one"
        )
    return {name: _input(shape, text) for (name, _, shape), text in zip(pairs, texts, strict=True)}


def _input(shape: str, text: str) -> tuple[int, ...] | Tensor:
    kind, colon, sizes = shape.rpartition(":")
    try:
        numbers = tuple(int(part) for part in sizes.split(","))
        dtype = _DTYPES[kind] if colon else None
    except (ValueError, KeyError):
        raise ModelError(
            f"--input {text!r}: positive integers with commas are needed, such as 3,224,224, with "
            f"a type of numbers before where it matters, such as long:77 ({', '.join(_DTYPES)})"
        ) from None
    if dtype is None or min(numbers) < 1:
        return numbers  # the audit says what is wrong with it
    inputs_of([numbers])
    return torch.empty((1, *numbers), dtype=dtype, device="meta")


def _table(found: Audit, sort: str | None) -> str:
    """Blocks, or layers where there are none, as wide as the terminal."""
    frame = found.to_frame()
    level = "block" if (frame["level"] == "block").any() else "layer"
    rows = frame[frame["level"] == level]
    if sort:
        rows = rows.sort_values(sort, ascending=False, kind="stable")
    width = max(60, shutil.get_terminal_size().columns)
    shown = rows[list(_SHORT)].copy()
    for name in ("K", "R", "params"):
        shown[name] = [_whole(value) for value in rows[name]]
    shown["ratio"] = [f"{value:.3g}" for value in rows["ratio"]]
    room = max(12, width - 2 - int(sum(_widths(shown.drop(columns="name")))))
    shown["name"] = [_shortened(printable(name), room) for name in rows["name"]]
    return str(shown.to_string(index=False, justify="left"))


def _whole(value: float) -> str:
    return "" if pd.isna(value) else f"{value:,.0f}"


def _widths(frame: pd.DataFrame) -> list[int]:
    return [1 + max(len(name), *frame[name].str.len(), 0) for name in frame.columns]


def _shortened(name: str, room: int) -> str:
    return name if len(name) <= room else f"...{name[3 - room :]}"
