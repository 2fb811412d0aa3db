"""``krratio audit``: find K, R and their redundancy in any torch network."""

import argparse

from krratio.auditing.reports.options import add_options
from krratio.commands.codes import OK
from krratio.pipeline.layout import Layout

__all__ = ["add"]


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    command = commands.add_parser(
        "audit",
        help="find K, R and their redundancy in any torch network",
        description="Find K, R and their redundancy in a torch network. MODULE is imported from "
        "the current folder or the environment and CALLABLE is called: that runs their code.",
    )
    add_options(command)
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace, _layout: Layout) -> int:
    from krratio.auditing.reports.command import run  # imports torch

    print(run(options), flush=True)
    return OK
