"""The process that runs tasks, one after the other: ``python -m krratio.pipeline.sweeping.child``.

Reads each task as one line of JSON and answers with one. When its parent is gone, so is it.
"""

import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from krratio.pipeline.processes import kill_group, own_stdout
from krratio.pipeline.sweeping.checkpoint import Checkpoint
from krratio.pipeline.sweeping.function import CHECKPOINT, code_of, find, takes_checkpoint
from krratio.pipeline.sweeping.plain import from_text, text
from krratio.pipeline.sweeping.rows import rows_of

__all__ = ["main", "perform"]

LONGEST = 4000  # characters of an error that are kept


def main() -> None:
    """Serve tasks from stdin until it closes."""
    answers = own_stdout()
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(waiting,), daemon=True).start()
    while True:
        answers.write(text(perform(from_text(waiting.get()))) + "\n")


def _read(waiting: "queue.SimpleQueue[str]") -> None:
    """Pass tasks on; the end of stdin means that the parent is gone, and ends a running task."""
    for line in sys.stdin:
        waiting.put(line)
    kill_group(os.getpgrp())
    os._exit(1)


def perform(request: Mapping[str, Any]) -> dict[str, Any]:
    """Run one task.

    Parameters
    ----------
    request
        ``function``, ``folder``, ``code``, ``parameters``, ``seed`` and ``checkpoint`` (a path).

    Returns
    -------
    dict
        ``rows`` or ``error``, and ``seconds``; or ``code``, if the code here is another than asked.
    """
    began = time.perf_counter()
    try:
        folder = Path(request["folder"]) if request["folder"] else None
        here = _code_of(request["function"], folder)
        if here != request["code"]:
            return {"code": here}
        function = find(request["function"], folder)
        arguments = dict(request["parameters"])
        if request["seed"] is not None:
            arguments["seed"] = request["seed"]
        given = dict(arguments)
        if takes_checkpoint(function):
            arguments[CHECKPOINT] = Checkpoint(Path(request["checkpoint"]))
        found: dict[str, Any] = {"rows": rows_of(function(**arguments), given)}
    except BaseException as error:  # also SystemExit: whatever it is, it is this task's failure
        found = {"error": _explain(error)}
    return {**found, "seconds": time.perf_counter() - began}


@cache
def _code_of(name: str, folder: Path | None) -> str:
    """Hash once: what is imported here does not change any more."""
    return code_of(name, folder)


def _explain(error: BaseException) -> str:
    """Name the error and the line that raised it."""
    where = traceback.extract_tb(error.__traceback__)
    line = f" ({Path(where[-1].filename).name}, line {where[-1].lineno})" if where else ""
    return f"{type(error).__name__}: {error}{line}"[:LONGEST]


if __name__ == "__main__":
    main()
