"""Ctrl-C during a sweep: the first press ends it in order, the second at once."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Stop"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130


class Stop:
    """Catches requests to end while its block runs.

    What has been stored by then is kept in both cases: every transaction of the store is whole or
    not there, and the workers end with this process.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            os.write(2, b"krratio: stopped at once; what was stored is kept\n")
            os._exit(INTERRUPTED)
        self.asked = True
        print("krratio: stopping; once more to stop at once", file=sys.stderr, flush=True)
