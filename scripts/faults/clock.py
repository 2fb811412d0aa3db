"""A wall clock that jumps back."""

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["going_back"]

PATCH = """
import time
_real, _begin = time.time, time.monotonic()
time.time = lambda: _real() - 3600 * (time.monotonic() - _begin > {after})
"""


def going_back(folder: Path, *, after: float) -> Mapping[str, str]:
    """Return the environment in which every Python's clock jumps back an hour, `after` seconds."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(PATCH.format(after=after))
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))
    return {"PYTHONPATH": path}
