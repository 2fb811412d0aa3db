"""Ctrl-C during a sweep: the first press ends it in order, the second at once."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import resource_tracker
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Stop"]

FROM_TERMINAL = (signal.SIGINT, signal.SIGHUP)
"""Sent to every process of the terminal, workers included, which must not die of them."""

CAUGHT = (*FROM_TERMINAL, signal.SIGTERM)
INTERRUPTED = 130


class Stop:
    """Catches requests to end while its block runs; in the main thread only.

    Signals from the terminal are blocked in this thread, and so in every thread and process that
    it starts: a thread of its own waits for them.

    What has been stored by then is kept in both cases: every transaction of the store is whole or
    not there, and the workers end with this process.
    """

    def __init__(self) -> None:
        self.asked = False
        self._is_over = False
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}
        self._waiting: threading.Thread | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in CAUGHT:
                self._before[number] = signal.signal(number, self._catch)
            resource_tracker.ensure_running()  # its start unblocks SIGINT: let that be over
            signal.pthread_sigmask(signal.SIG_BLOCK, FROM_TERMINAL)
            self._waiting = threading.Thread(target=self._wait, daemon=True)
            self._waiting.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over = True
        if self._waiting is not None and self._waiting.ident is not None:
            with suppress(ProcessLookupError):
                signal.pthread_kill(self._waiting.ident, signal.SIGHUP)
            self._waiting.join()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, FROM_TERMINAL)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _wait(self) -> None:
        while not self._is_over:
            signal.sigwait(FROM_TERMINAL)
            if not self._is_over:
                self._catch()

    def _catch(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        if self.asked:
            os.write(2, b"krratio: stopped at once; what was stored is kept\n")
            os._exit(INTERRUPTED)
        self.asked = True
        print("krratio: stopping; once more to stop at once", file=sys.stderr, flush=True)
