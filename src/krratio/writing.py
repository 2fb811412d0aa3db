"""Files written whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["write_text", "write_whole"]


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside `path` and move over it, so that a full disk leaves no half file.

    What ``write`` is given ends in the suffix of `path` and ``.tmp``.
    """
    beside = path.with_name(f"{path.stem}.{os.getpid()}{path.suffix}.tmp")
    try:
        write(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file; an error names the file that was asked for."""
    to = Path(path)
    try:
        write_whole(to, lambda beside: _text(beside, text))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(to)) from error


def _text(to: Path, text: str) -> None:
    to.write_text(text, encoding="utf-8", newline="\n")
