"""How far a long task has come, kept on disk, so that it goes on there when its process dies."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

from krratio.writing import write_whole

__all__ = ["Checkpoint"]

DIGEST = 32  # bytes of a SHA-256


class Checkpoint:
    """What a task last saved.

    A function of a sweep that has a parameter ``checkpoint`` is given one. It begins with
    ``state = checkpoint.load()``, which is None at first, and calls ``checkpoint.save(state)`` now
    and then; the state must hold everything that decides the rest: weights, optimizer, the state of
    its generators, the epoch. The file is removed when the task's result is in the store.

    Parameters
    ----------
    path
        The file. On a cluster it must lie on a disk that all machines see.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, state: Any) -> None:
        """Save tensors and plain values, whole or not at all.

        Raises
        ------
        OSError
            If it cannot be written; the last state is as it was.
        """
        import torch

        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, lambda to: _write(to, hashlib.sha256(content).digest() + content))

    def load(self) -> Any:
        """Return what was saved last; None if nothing was, or if the file is damaged.

        A damaged file costs time and no result: the task starts over.
        """
        import torch

        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(content[DIGEST:]).digest() != content[:DIGEST]:
            return None
        return torch.load(io.BytesIO(content[DIGEST:]), weights_only=True)


def _write(to: Path, content: bytes) -> None:
    with to.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # the name must not be there before its content
