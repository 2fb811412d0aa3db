"""The command ``krratio audit``."""

import argparse
import shutil

import pandas as pd

from krratio.auditing.audit import Audit, audit, write
from krratio.auditing.errors import ModelError
from krratio.auditing.load import build, load_weights

__all__ = ["run"]

_SHORT = ("name", "kind", "K", "R", "ratio", "params", "redundancy")


def run(options: argparse.Namespace) -> str:
    """Audit, write the files that were asked for, and return what is to be printed."""
    shapes = [_shape(text) for text in options.input]
    model = build(options.target)
    if options.weights is not None:
        load_weights(model, options.weights)
    found = audit(model, shapes)
    if options.html is not None:
        found.to_html(options.html)
    if options.json is not None:
        write(options.json, found.to_json() + "\n")
    if options.csv is not None:
        write(options.csv, found.to_frame().to_csv(index=False, lineterminator="\n"))
    return f"{_table(found, options.sort)}\n\n{found.summary()}"


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ModelError(
            f"--input {text!r}: positive integers with commas are needed, such as 3,224,224"
        ) from None


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
    shown["name"] = [_shortened(name, room) for name in rows["name"]]
    return str(shown.to_string(index=False, justify="left"))


def _whole(value: float) -> str:
    return "" if pd.isna(value) else f"{value:,.0f}"


def _widths(frame: pd.DataFrame) -> list[int]:
    return [1 + max(len(name), *frame[name].str.len(), 0) for name in frame.columns]


def _shortened(name: str, room: int) -> str:
    return name if len(name) <= room else f"...{name[3 - room :]}"
