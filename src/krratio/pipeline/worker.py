"""One notebook in one process: ``python -m krratio.pipeline.worker``.

Reads a request as one line of JSON, writes events as lines of JSON, and ends with ``done`` or
``failed``. The events go through a pipe, so they arrive even when the disk is full. When the pipe
from the parent closes, because the parent was killed, the worker takes its kernel down with it.
"""

import json
import os
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from krratio.errors import KrratioError, NotebookError
from krratio.pipeline import nbfile
from krratio.pipeline.files import is_no_room
from krratio.pipeline.kernel import Run
from krratio.pipeline.normalize import code_cells, label, normalize
from krratio.pipeline.processes import kill_group, own_stdout
from krratio.pipeline.request import Request

__all__ = ["main", "serve"]

ANSI = re.compile(r"\x1b\[[0-9;]*m")
LONGEST = 2000  # characters of an error that are passed on

Event = dict[str, Any]


def main() -> None:
    """Serve one request from stdin; events go to stdout, all other output to stderr."""
    events = own_stdout()  # what the kernel or a library prints must not mix with events
    kernels: list[int] = []

    def emit(event: Event) -> None:
        if event["event"] == "kernel":
            kernels.append(event["pid"])
        events.write(json.dumps(event) + "\n")

    request = Request.from_line(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, args=(kernels,), daemon=True).start()
    emit(serve(request, emit))


def serve(request: Request, emit: Callable[[Event], None]) -> Event:
    """Execute, normalize and write the notebook of `request`.

    Parameters
    ----------
    request : Request
    emit : callable
        Told ``kernel`` (``pid``) and ``cell`` (``index``, ``where``) events on the way.

    Returns
    -------
    dict
        ``{"event": "done"}`` or ``{"event": "failed", "message": ...}``.
    """
    run = Run(
        nbfile.from_text(request.notebook),
        expected=(request.executable, request.prefix),
        on_cell=lambda index: emit({"event": "cell", "index": index, "where": _where(run)}),
        on_kernel=lambda pid: emit({"event": "kernel", "pid": pid}),
    )
    try:
        run.execute(request.folder, request.cell_timeout)
        _check_all_ran(run.notebook)
        places = [Path(place) for place in request.places]
        nbfile.write(normalize(run.notebook, places), Path(request.output))
    except Exception as error:  # whatever it is, it is this notebook's failure
        _keep(run.notebook, Path(request.rejected))
        return {"event": "failed", "message": _explain(error, run, request)}
    return {"event": "done"}


def _check_all_ran(notebook: NotebookNode) -> None:
    """Refuse a notebook that ended early: ``exit()`` in a cell is no error to papermill."""
    for count, cell in enumerate(code_cells(notebook), start=1):
        if cell.execution_count is None:
            raise NotebookError(f"it ended before {label(cell, count)}; remove the exit")


def _explain(error: Exception, run: Run, request: Request) -> str:
    """Say what went wrong, and in which cell."""
    match error:
        case PapermillExecutionError():
            problem = ANSI.sub("", f"{error.ename}: {error.evalue}")
        case CellTimeoutError():
            limit = request.cell_timeout
            problem = f"took longer than {limit:g} s; allow more with --cell-timeout"
        case DeadKernelError():
            problem = "the kernel died: it was killed, or ran out of memory"
        case KrratioError():
            return str(error)
        case OSError() if is_no_room(error):
            return f"no room left to write {error.filename or request.output}: {error.strerror}"
        case _:
            problem = f"{type(error).__name__}: {error}"
    return f"{_where(run) or 'outside its code cells'}: {problem}"[:LONGEST]


def _where(run: Run) -> str:
    """Name the code cell that started last; nothing if it is text."""
    for count, cell in enumerate(code_cells(run.notebook), start=1):
        if cell is run.cell:
            return label(cell, count)
    return ""


def _keep(notebook: NotebookNode, path: Path) -> None:
    """Leave the notebook as far as it ran, for whoever looks for the error; best effort."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        nbfile.write(notebook, path)
    except OSError:
        path.unlink(missing_ok=True)


def _end_with_parent(kernels: list[int]) -> None:
    while sys.stdin.read(1):
        pass
    for pid in kernels:
        kill_group(pid)
    os._exit(1)


if __name__ == "__main__":
    main()
