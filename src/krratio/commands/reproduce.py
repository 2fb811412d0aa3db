"""``krratio reproduce``: execute the notebooks and regenerate their figures."""

import argparse
import sys
from pathlib import Path

from krratio.commands.codes import FAILED, OK
from krratio.pipeline.columns import columns
from krratio.pipeline.layout import Layout
from krratio.pipeline.registry import PROFILES, load_registry
from krratio.pipeline.request import CELL_TIMEOUT

__all__ = ["add"]


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    command = commands.add_parser(
        "reproduce",
        help="execute the notebooks and regenerate their figures",
        description="Execute the notebooks and regenerate their figures. The default profile "
        "refreshes notebooks/ and figures/; the others write to runs/PROFILE/.",
    )
    command.add_argument("--profile", choices=PROFILES, default="default", help="set of parameters")
    command.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="ID",
        help="notebooks or figures; a figure comes with its whole notebook",
    )
    command.add_argument("--jobs", type=int, metavar="N", help="notebooks at a time (one per core)")
    command.add_argument("--out", type=Path, metavar="DIR", help="write there instead")
    command.add_argument(
        "--cell-timeout",
        type=float,
        default=CELL_TIMEOUT,
        metavar="SECONDS",
        help="what one cell may take (%(default)g)",
    )
    command.add_argument("--list", action="store_true", help="show notebooks and figures and stop")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace, layout: Layout) -> int:
    if options.list:
        return _list(layout)
    from krratio.pipeline.report import table
    from krratio.pipeline.reproduce import Options, reproduce

    report = reproduce(
        Options(
            profile=options.profile,
            only=tuple(options.only),
            jobs=options.jobs,
            out=options.out,
            cell_timeout=options.cell_timeout,
        ),
        layout,
    )
    print(table(report.rows), flush=True)
    for failure in report.failures:
        print(f"krratio: {failure}", file=sys.stderr)
    return OK if report.ok else FAILED


def _list(layout: Layout) -> int:
    lines = [("notebook", "figure", "title")]
    for chapter in load_registry(layout).chapters:
        lines.append((chapter.stem, "", chapter.title))
        lines += [("", figure_id, title) for figure_id, title in chapter.figures.items()]
    print(columns(lines))
    return OK
