"""``krratio export`` and ``krratio import``: a store as a file for git, and back."""

import argparse
from pathlib import Path

from krratio.commands.codes import OK
from krratio.commands.stores import add_store, store_at
from krratio.pipeline.layout import Layout

__all__ = ["add"]


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare both commands."""
    export = commands.add_parser(
        "export",
        help="write the results of a sweep as CSV or Parquet",
        description="Write the results of a sweep as CSV or Parquet, in the order of the grid: the "
        "same results give the same bytes. What is known of them goes into a .json beside it.",
    )
    add_store(export)
    export.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="ends in .csv or .parquet"
    )
    export.add_argument(
        "--partial", action="store_true", help="even if tasks are pending or failed"
    )
    export.add_argument(
        "--times", action="store_true", help="also attempts, seconds and times of each task"
    )
    export.set_defaults(run=_export)
    restore = commands.add_parser(
        "import",
        help="read an export into a new store",
        description="Read an export, and the .json beside it, into a new store.",
    )
    restore.add_argument("file", type=Path, metavar="FILE", help="what krratio export wrote")
    add_store(restore)
    restore.set_defaults(run=_import)


def _export(options: argparse.Namespace, layout: Layout) -> int:
    from krratio.pipeline.store import Store
    from krratio.pipeline.storing.export import beside, export

    with Store(store_at(options.store, layout)) as store:
        export(store, options.out, partial=options.partial, times=options.times)
    print(f"{options.out} and {beside(options.out)} are written")
    return OK


def _import(options: argparse.Namespace, layout: Layout) -> int:
    from krratio.pipeline.store import Store
    from krratio.pipeline.storing.export import restore

    path = store_at(options.store, layout)
    with Store(path, write=True) as store:
        print(f"{restore(options.file, store)} tasks are in {path}")
    return OK
