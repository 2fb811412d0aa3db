"""The record of all faults as a page of the documentation."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

from faults.running import COLUMNS, Row

__all__ = ["page", "read", "to_csv"]

HEAD = """\
# Faults

Every fault below was really injected, at moments and places drawn at random; afterwards what was
there was compared with an undisturbed run. *Lost* is a finished result that is gone, *doubled* one
that is there twice, *wrong* one that differs without a word about it.

    python scripts/inject_faults.py              # each fault a few times, minutes
    python scripts/inject_faults.py --thorough   # the table, as `make soak` does it
    python scripts/inject_faults.py --only NAME --seed 7

{total}

| fault | target | what is done | injected | what happened | lost / doubled / wrong |
|---|---|---|---:|---|---:|
"""


def to_csv(rows: Iterable[Row]) -> str:
    """Return the rows as CSV text."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(row, name) for name in COLUMNS] for row in rows)
    return text.getvalue()


def read(path: Path) -> list[Row]:
    """Return the rows of a file that `to_csv` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return [_row(line) for line in csv.DictReader(file)]


def _row(line: dict[str, str]) -> Row:
    injected, lost, doubled, wrong = (
        int(line[name]) for name in ("injected", "lost", "doubled", "wrong")
    )
    found = line["fault"], line["target"], line["what"]
    return Row(*found, injected, lost, doubled, wrong, float(line["seconds"]), line["said"])


def page(rows: Sequence[Row]) -> str:
    """Return the page that shows the rows."""
    lines = [
        f"| `{row.fault}` | {row.target} | {row.what} | {row.injected} | {row.said} "
        f"| {row.lost} / {row.doubled} / {row.wrong} |\n"
        for row in (_escaped(row) for row in rows)
    ]
    return HEAD.format(total=_total(rows)) + "".join(lines)


def _total(rows: Sequence[Row]) -> str:
    injected, lost, doubled, wrong = (
        sum(getattr(row, name) for row in rows) for name in ("injected", "lost", "doubled", "wrong")
    )
    return (
        f"{len(rows)} faults, injected {injected:,} times: {lost} results lost, {doubled} doubled, "
        f"{wrong} wrong."
    )


def _escaped(row: Row) -> Row:
    texts = {name: getattr(row, name).replace("|", "\\|") for name in ("target", "what", "said")}
    return replace(row, **texts)
