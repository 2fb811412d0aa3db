"""Processes of our own: how they talk, and how they end together with what they started."""

import os
import signal
from typing import TextIO

__all__ = ["kill_group", "own_stdout"]


def kill_group(pid: int) -> None:
    """Kill the process group led by `pid`, if it is still there."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def own_stdout() -> TextIO:
    """Return this process's stdout, by the line; what anything else prints goes to stderr."""
    found = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return found
