"""Dask's own log, kept off the screen: in the driver for a block, in its workers to their end.

Lost workers and closed connections are no news to the user: the driver counts what comes back.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["dask_setup", "quiet"]


def dask_setup(_worker: Any) -> None:
    """Keep a worker quiet: Dask calls this when it starts one that preloads this module.

    Dask's setting for silence ends before a worker does, and a heartbeat may come in between.
    """
    for handler in _handlers():
        handler.addFilter(_nothing)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep this process quiet."""
    handlers = _handlers()
    for handler in handlers:
        handler.addFilter(_nothing)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_nothing)


def _handlers() -> list[logging.Handler]:
    """Return those of Dask, which are also those of tornado under it."""
    return list(logging.getLogger("distributed").handlers)


def _nothing(_record: logging.LogRecord) -> bool:
    return False
