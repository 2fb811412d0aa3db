"""``krratio records``: the results that are kept in git, and what vouches for them."""

import argparse
import sys

from krratio.commands.codes import FAILED, OK
from krratio.pipeline.columns import columns
from krratio.pipeline.layout import Layout

__all__ = ["add"]


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
    lines = [("record", "rows", "whole", "made by", "last computed again")]
    for record in found:
        code = record.code or ""
        made_by = "this code" if code == here else f"code {code[:12]}" if code else "nobody knows"
        verified = record.verified
        again = f"{verified['rows']} rows on {verified['date']}" if verified else "never"
        whole = "yes" if record.is_intact else "no"
        lines.append((record.table, str(record.rows), whole, made_by, again))
    print(columns(lines))
    damaged = [record.table for record in found if not record.is_intact]
    for table in damaged:
        print(f"krratio: data/results/{table} is not what was recorded", file=sys.stderr)
    return FAILED if damaged else OK
