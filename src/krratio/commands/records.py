"""``krratio records``: the results that are kept in git, and what vouches for them."""

import argparse
import sys

from krratio.commands.codes import FAILED, OK
from krratio.pipeline.columns import columns
from krratio.pipeline.layout import Layout

__all__ = ["add"]

SAID = {
    "changed": "not what was recorded; restore it from git",
    "missing": "missing; restore it from git",
    "not sealed": "vouched for by no record",
}


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    command = commands.add_parser(
        "records",
        help="the recorded results, by which code, and whether they are whole",
        description="List the recorded results in data/results: rows, the code that made them, and "
        "when a part was last computed again. They stay when the code changes.",
    )
    command.set_defaults(run=_run)


def _run(_options: argparse.Namespace, layout: Layout) -> int:
    from krratio.pipeline.code import code_hash
    from krratio.pipeline.records import records

    here, found = code_hash(layout), records(layout)
    lines = [("record", "rows", "state", "made by", "last computed again")]
    for record in found:
        code = record.code or ""
        made_by = "this code" if code == here else f"code {code[:12]}" if code else "nobody knows"
        verified = record.verified
        again = f"{verified['rows']} rows on {verified['date']}" if verified else "never"
        rows = "" if record.rows is None else str(record.rows)
        lines.append((record.table, rows, record.state, made_by, again))
    print(columns(lines))
    wrong = [record for record in found if record.state != "whole"]
    for record in wrong:
        print(f"krratio: data/results/{record.table} is {SAID[record.state]}", file=sys.stderr)
    return FAILED if wrong else OK
