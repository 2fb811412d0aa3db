"""``krratio doctor``: check the installation, the data and some known numbers."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from krratio.commands.codes import FAILED, OK
from krratio.pipeline.columns import columns
from krratio.pipeline.layout import Layout

if TYPE_CHECKING:
    from krratio.pipeline.doctoring.finding import Finding

__all__ = ["add"]


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    command = commands.add_parser(
        "doctor",
        help="check the installation, the data and some known numbers",
        description="Check interpreter, packages, linear algebra, data, free room, and the "
        "committed figures and records; then compute known numbers, for some ten seconds.",
    )
    command.add_argument("--json", action="store_true", help="print the findings as JSON")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace, layout: Layout) -> int:
    findings = list(_findings(layout))
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        lines = [(finding.level, finding.name, finding.fact) for finding in findings]
        print(columns([("", "what", "how it is"), *lines]))
    return FAILED if any(finding.level == "failed" for finding in findings) else OK


def _findings(layout: Layout) -> "Iterator[Finding]":
    from krratio.pipeline.doctoring import committed, surroundings
    from krratio.pipeline.doctoring.selftest import selftest

    yield surroundings.interpreter(layout)
    yield surroundings.packages(layout)
    yield surroundings.linear_algebra()
    yield surroundings.data()
    yield surroundings.room(layout)
    yield committed.figures(layout)
    yield committed.recorded(layout)
    yield from selftest()
