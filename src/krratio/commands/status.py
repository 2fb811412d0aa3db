"""``krratio status``: how far the sweeps are."""

import argparse
from pathlib import Path

from krratio.commands.codes import OK
from krratio.commands.stores import store_at
from krratio.pipeline.layout import Layout

__all__ = ["add"]

MOST = 20  # failures that are listed


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    command = commands.add_parser(
        "status",
        help="how far sweeps are, what failed and why",
        description="How far sweeps are, what failed and why; also while they run.",
    )
    command.add_argument(
        "stores",
        nargs="*",
        metavar="STORE",
        help="files of results, or names for runs/NAME.sqlite (all in runs/)",
    )
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace, layout: Layout) -> int:
    paths = [store_at(given, layout) for given in options.stores]
    paths = paths or sorted(layout.runs.glob("*.sqlite"))
    if not paths:
        print(f"no sweep has a store in {layout.runs} yet")
    for path in paths:
        print("\n".join(_lines(path)))
    return OK


def _lines(path: Path) -> list[str]:
    from itertools import islice

    from krratio.pipeline.store import Store
    from krratio.pipeline.sweeping.summary import summary_of

    with Store(path) as store:
        counts = store.counts()
        name = store.facts().get("sweep", "no sweep yet")
        lines = [
            f"{name}: {counts['done']} of {sum(counts.values())} tasks done, {counts['failed']} "
            f"failed, {counts['pending']} pending; {path}"
        ]
        if others := store.others():
            lines.append(f"  {others} more, of other code or values, are not used")
        if verified := store.facts().get("verified"):
            lines.append(
                f"  verified {verified['date']}: {verified['tasks']} tasks computed again, "
                f"{verified['differing']} differ"
            )
        lines += [
            f"  failed: {row.task}: {row.error}" for row in islice(store.rows("failed"), MOST)
        ]
        summary = summary_of(store)
        if summary is not None and summary.groups:
            lines.append(summary.table())
        return lines
