"""krratio: reproduce the figures, audit networks, run sweeps."""

import argparse
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version

from krratio.commands import audit, doctor, exports, records, reproduce, status, sweep, verify
from krratio.commands.codes import FAILED, INTERRUPTED, WRONG_INPUT
from krratio.errors import BusyError, ClusterError, KrratioError
from krratio.pipeline.files import unwritable
from krratio.pipeline.layout import CLONE, Layout

__all__ = ["main"]

COMMANDS = (reproduce, audit, sweep, status, exports, verify, records, doctor)
"""In the order of the help."""


def main(arguments: Sequence[str] | None = None, layout: Layout = CLONE) -> int:
    """Run the command line.

    Returns
    -------
    int
        One of `krratio.commands.codes`: 0 if all went well; 1 if something failed; 2 if the
        registry, the parameters or the options are wrong, in which case nothing ran; 130 after
        Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    try:
        with _ending_like_ctrl_c():
            code: int = options.run(options, layout)
            return code
    except (BusyError, ClusterError) as error:
        return _complain(str(error), FAILED)
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
    for command in COMMANDS:
        command.add(commands)
    return parser


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
