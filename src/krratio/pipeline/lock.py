"""One writer at a time: a lock that goes away with the process that holds it, however it ends."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from krratio.errors import BusyError
from krratio.writing import write_text

__all__ = ["only_one"]


@contextmanager
def only_one(path: Path, what: str, *, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock `path` for the block.

    Parameters
    ----------
    path
        The lock file; its folder is made. The operating system frees the lock when its holder
        dies, so that a file left behind means nothing.
    what
        What is being protected, for the message: ``runs/a.sqlite``.
    patience
        Seconds to wait for another holder.

    Raises
    ------
    BusyError
        If another process holds it all that time; the message names it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_name(f"{path.name}.holder")
    try:
        with FileLock(path, timeout=patience):
            write_text(holder, _me())
            try:
                yield
            finally:
                holder.unlink(missing_ok=True)
    except Timeout:
        waited = f" after {patience:g} s of waiting" if patience else ""
        raise BusyError(
            f"{what} is in use by {_who(holder)}{waited}; let it end, or end it, then try again"
        ) from None


def _me() -> str:
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": now})


def _who(holder: Path) -> str:
    try:
        found = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {found['process']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
