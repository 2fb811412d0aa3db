"""What Dask runs: a few tasks in a row, in the sandbox of the worker's thread."""

import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from krratio.pipeline.code import versions
from krratio.pipeline.runlog import processor
from krratio.pipeline.sweeping.sandbox import Sandbox
from krratio.pipeline.sweeping.task import Limits

__all__ = ["abandon", "now", "run_chunk"]

_own = threading.local()
_running: dict[str, set[Sandbox]] = defaultdict(set)
"""Sweep -> the sandboxes that run its tasks in this process."""

_abandoned: set[str] = set()


def run_chunk(
    sweep: str, requests: Sequence[Mapping[str, Any]], limits: Limits, seconds: float
) -> list[dict[str, Any]]:
    """Run tasks until all are done or `seconds` have passed, but at least one.

    Returns
    -------
    list of dict
        The answers for the first tasks; see `Sandbox.run`. Fewer than `requests` if time was up.
    """
    if not hasattr(_own, "sandbox"):
        _own.sandbox = Sandbox()
    began = time.perf_counter()
    answers: list[dict[str, Any]] = []
    _running[sweep].add(_own.sandbox)
    try:
        for request in requests:
            if sweep in _abandoned or (answers and time.perf_counter() - began > seconds):
                break
            answer = _own.sandbox.run(request, limits)
            answers.append({**answer, "finished": now(), "where": _where()})
    finally:
        _running[sweep].discard(_own.sandbox)
    return answers


def abandon(sweep: str) -> None:
    """End the tasks of a sweep that run in this process: nobody waits for them any more."""
    _abandoned.add(sweep)
    for sandbox in list(_running.pop(sweep, ())):
        sandbox.abandon()


def now() -> str:
    """Return the wall-clock time in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def _where() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "worker": os.getpid(),
        "processor": processor(),
        "versions": versions(),
    }
