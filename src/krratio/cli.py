"""The command line: ``krratio reproduce`` and ``krratio audit``."""

import argparse
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from krratio.auditing.reports.options import add_options
from krratio.errors import KrratioError
from krratio.pipeline.files import unwritable
from krratio.pipeline.layout import CLONE, Layout
from krratio.pipeline.registry import PROFILES, load_registry
from krratio.pipeline.report import columns, table
from krratio.pipeline.reproduce import CELL_TIMEOUT, Options, reproduce

__all__ = ["main"]

OK, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None, layout: Layout = CLONE) -> int:
    """Run the command line.

    Returns
    -------
    int
        0 if all went well; 1 if a notebook or figure failed; 2 if the registry, the parameters or
        the options are wrong, in which case nothing ran; 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    try:
        with _ending_like_ctrl_c():
            code: int = options.run(options, layout)
            return code
    except KrratioError as error:
        return _complain(str(error), WRONG_INPUT)
    except OSError as error:
        return _complain(unwritable(error), FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted; what was not finished is as it was", INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="krratio", description=__doc__)
    parser.add_argument("--version", action="version", version=f"krratio {version('krratio')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
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
    command.set_defaults(run=_reproduce)
    _add_audit(commands)
    return parser


def _add_audit(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    audit = commands.add_parser(
        "audit",
        help="find K, R and their redundancy in any torch network",
        description="Find K, R and their redundancy in a torch network. MODULE is imported from "
        "the current folder or the environment and CALLABLE is called: that runs their code.",
    )
    add_options(audit)
    audit.set_defaults(run=_audit)


def _audit(options: argparse.Namespace, _layout: Layout) -> int:
    from krratio.auditing.reports.command import run  # imports torch

    print(run(options), flush=True)
    return OK


def _reproduce(options: argparse.Namespace, layout: Layout) -> int:
    if options.list:
        return _list(layout)
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
        _complain(failure, FAILED)
    return OK if report.ok else FAILED


def _list(layout: Layout) -> int:
    lines = [("notebook", "figure", "title")]
    for chapter in load_registry(layout).chapters:
        lines.append((chapter.stem, "", chapter.title))
        lines += [("", figure_id, title) for figure_id, title in chapter.figures.items()]
    print(columns(lines))
    return OK


def _complain(message: str, code: int) -> int:
    print(f"krratio: {message}", file=sys.stderr)
    return code


@contextmanager
def _ending_like_ctrl_c() -> Iterator[None]:
    """Let a polite request to end, or a closed terminal, clean up as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
