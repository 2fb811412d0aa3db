"""``krratio sweep`` and ``krratio retry``: run the tasks of a grid, keep their results."""

import argparse
import sys
from pathlib import Path

from krratio.commands.codes import FAILED, INTERRUPTED, OK
from krratio.pipeline.layout import Layout

__all__ = ["add"]


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare both commands."""
    sweep = commands.add_parser(
        "sweep",
        help="run the tasks of a grid, keep their results",
        description="Run every task of a grid that its store has no result of, on this machine or "
        "on a Dask cluster. GRID is a .yaml or .py file; it names a function, which is run.",
    )
    _add_options(sweep)
    sweep.add_argument(
        "--resume", action="store_true", help="go on with a store that holds results of this grid"
    )
    sweep.add_argument(
        "--dry-run",
        action="store_true",
        help="list the tasks, with what they should take by what was recorded, and stop",
    )
    sweep.set_defaults(run=_sweep, retry=False)
    retry = commands.add_parser(
        "retry",
        help="run the failed tasks of a grid again, and what is pending",
        description="Run the failed tasks of a grid again, and those that are pending.",
    )
    _add_options(retry)
    retry.set_defaults(run=_sweep, retry=True, resume=True, dry_run=False)


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("grid", type=Path, metavar="GRID", help="what to run")
    command.add_argument(
        "--store", type=Path, metavar="FILE", help="file of results (runs/NAME.sqlite)"
    )
    command.add_argument("--jobs", type=int, metavar="N", help="tasks at a time (one per core)")
    command.add_argument(
        "--scheduler", metavar="A", help="tcp://host:port or scheduler file of a Dask cluster"
    )
    command.add_argument(
        "--max-hours", type=float, metavar="H", help="stop then; --resume goes on later"
    )
    command.add_argument(
        "--shuffle", type=int, metavar="SEED", help="run the tasks in a random order"
    )
    command.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="wait for another sweep on the same store to end (%(default)g)",
    )


def _sweep(options: argparse.Namespace, layout: Layout) -> int:
    from krratio.pipeline.sweep import SweepOptions, sweep
    from krratio.pipeline.sweeping.gridfile import load_grid

    grid = load_grid(options.grid)
    chosen = SweepOptions(
        store=options.store,
        jobs=options.jobs,
        scheduler=options.scheduler,
        resume=options.resume,
        retry=options.retry,
        max_hours=options.max_hours,
        shuffle=options.shuffle,
        patience=options.wait,
    )
    if options.dry_run:
        from krratio.pipeline.sweeping.dry import listing

        for line in listing(grid, chosen, layout):
            print(line)
        return OK
    report = sweep(grid, chosen, layout)
    if report.summary is not None and report.summary.groups:
        print(report.summary.table())
    counts = report.counts
    print(
        f"{grid.name}: {counts['done']} of {sum(counts.values())} tasks done, {counts['failed']} "
        f"failed, {counts['pending']} pending; {report.store}"
    )
    if report.stopped:
        print(f"krratio: {report.stopped}; --resume goes on with the rest", file=sys.stderr)
    if report.stopped == "interrupted":
        return INTERRUPTED
    return OK if counts["done"] == sum(counts.values()) else FAILED
