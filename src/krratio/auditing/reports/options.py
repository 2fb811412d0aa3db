"""Options of ``krratio audit``; this imports no torch, so that the command line starts at once."""

import argparse
from pathlib import Path

__all__ = ["add_options"]


def add_options(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("target", metavar="MODULE:CALLABLE", help="what makes the network")
    command.add_argument(
        "--input",
        required=True,
        action="append",
        metavar="[NAME=][TYPE:]C,H,W",
        help="shape of the input without the batch, once for each input; long:77 are integers, "
        "NAME= gives it by name",
    )
    command.add_argument("--weights", type=Path, metavar="FILE", help="a checkpoint that must fit")
    command.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained page")
    command.add_argument("--json", type=Path, metavar="FILE", help="write all rows as JSON")
    command.add_argument("--csv", type=Path, metavar="FILE", help="write all rows as CSV")
    command.add_argument(
        "--sort", choices=("ratio", "params", "excess", "macs", "K", "R"), help="largest first"
    )
