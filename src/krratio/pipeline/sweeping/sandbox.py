"""A process beside this one that runs tasks within limits, and may die of them."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from krratio.pipeline.environment import FIXED
from krratio.pipeline.processes import kill_group
from krratio.pipeline.sweeping.plain import from_text, text
from krratio.pipeline.sweeping.task import Limits

__all__ = ["ATTEMPTS", "Sandbox"]

ATTEMPTS = 3
"""Processes that a task may take down before it counts as failed."""

TICK = 0.1  # seconds between two looks at the memory
TAIL = 400  # bytes of what it last printed that are passed on
MEGABYTE = 1e6


class Sandbox:
    """Runs tasks one after the other, in a process that is started again when it has died."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._printed: BinaryIO | None = None
        self._is_fresh = True
        self._is_abandoned = False

    def run(self, request: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
        """Run one task.

        Returns
        -------
        dict
            What `child.perform` answered, or an ``error`` for a task that took too long, used too
            much memory or killed its process `ATTEMPTS` times; with ``attempts`` and ``seconds``.
        """
        began = time.perf_counter()
        answer: dict[str, Any] = {}
        attempt = 0
        self._is_abandoned = False
        while not answer:
            attempt += 1
            answer = self._attempt(request, limits, attempt)
        return {"seconds": time.perf_counter() - began, **answer, "attempts": attempt}

    def abandon(self) -> None:
        """End the running task from another thread; nobody reads its answer."""
        self._is_abandoned = True
        if self._child is not None:
            kill_group(self._child.pid)

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            kill_group(self._child.pid)
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        if self._printed is not None:
            self._printed.close()
        self._child = self._printed = None

    def _attempt(self, request: Mapping[str, Any], limits: Limits, attempt: int) -> dict[str, Any]:
        """Return the answer; an empty one if the task is to be tried again."""
        child = self._running()
        was_fresh, self._is_fresh = self._is_fresh, False
        assert child.stdin is not None
        assert self._printed is not None
        self._printed.seek(0)
        self._printed.truncate()
        try:
            child.stdin.write((text(request) + "\n").encode())
            child.stdin.flush()
            line = self._line(child, limits)
        except _MemoryError as error:
            self.close()
            # What earlier tasks left behind in the process must not count.
            return {"error": str(error)} if was_fresh else {}
        except _TimeError as error:
            self.close()
            return {"error": str(error)}
        except (BrokenPipeError, EOFError):
            reason = self._how_it_died(child)
            attempt = ATTEMPTS if self._is_abandoned else attempt
            return (
                {"error": f"its process died {attempt} times: {reason}"}
                if attempt >= ATTEMPTS
                else {}
            )
        answer: dict[str, Any] = from_text(line)
        return answer

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._child is None:
            self._is_fresh = True
            self._printed = _nameless_file()
            # A session of its own: Ctrl-C is for whoever runs the sweep, and what a task has
            # started ends with it.
            self._child = subprocess.Popen(
                [sys.executable, "-m", "krratio.pipeline.sweeping.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._printed,
                env={**os.environ, **FIXED},
                start_new_session=True,
            )
        return self._child

    def _line(self, child: "subprocess.Popen[bytes]", limits: Limits) -> str:
        assert child.stdout is not None
        began = time.perf_counter()
        received = b""
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                if selector.select(_pause(limits, began)):
                    more = os.read(child.stdout.fileno(), 1 << 20)
                    if not more:
                        raise EOFError
                    received += more
                else:
                    _check(child.pid, limits, time.perf_counter() - began)
        return received.decode()

    def _how_it_died(self, child: "subprocess.Popen[bytes]") -> str:
        code = child.wait()
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        assert self._printed is not None
        self._printed.seek(0)
        printed = self._printed.read()[-TAIL:].decode(errors="replace").strip()
        self.close()
        return f"{name}; it last printed {printed!r}" if printed else name


class _TimeError(Exception):
    """Beyond the limit of seconds."""


class _MemoryError(Exception):
    """Beyond the limit of memory."""


def _nameless_file() -> BinaryIO:
    """Return a file that is gone with this process, however it ends."""
    descriptor, name = tempfile.mkstemp(prefix="krratio-")
    Path(name).unlink()
    return os.fdopen(descriptor, "w+b")


def _pause(limits: Limits, began: float) -> float | None:
    """Return how long to wait before the next look at the limits."""
    left = None if limits.seconds is None else began + limits.seconds - time.perf_counter()
    if limits.memory_mb is None:
        return None if left is None else max(left, 0.0)
    return TICK if left is None else max(min(TICK, left), 0.0)


def _check(pid: int, limits: Limits, seconds: float) -> None:
    if limits.seconds is not None and seconds >= limits.seconds:
        raise _TimeError(f"it took longer than {limits.seconds:g} s, its limit")
    if limits.memory_mb is not None:
        used = _memory(pid) / MEGABYTE
        if used > limits.memory_mb:
            raise _MemoryError(
                f"it used {used:,.0f} MB of memory; its limit is {limits.memory_mb:g} MB"
            )


def _memory(pid: int) -> int:
    """Resident bytes of a process and of what it started."""
    total = 0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total
