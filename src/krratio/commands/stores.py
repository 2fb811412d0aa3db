"""How a store is named on the command line."""

import argparse
from pathlib import Path

from krratio.pipeline.layout import Layout

__all__ = ["add_store", "store_at"]


def add_store(command: argparse.ArgumentParser) -> None:
    """Declare the argument STORE."""
    command.add_argument(
        "store",
        metavar="STORE",
        help="the file of results of a sweep, or the sweep's name for runs/NAME.sqlite",
    )


def store_at(given: str, layout: Layout) -> Path:
    """Return the file that STORE means."""
    path = Path(given)
    is_name = path.suffix == "" and path.name == given and not path.exists()
    return layout.runs / f"{given}.sqlite" if is_name else path
