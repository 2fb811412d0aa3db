"""What a result was computed by: the hash of the code and the versions of the packages.

This imports nothing heavy, because every process of a sweep asks for it.
"""

import hashlib
import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from krratio.pipeline.layout import CLONE, Layout

__all__ = ["CODE", "PACKAGES", "code_hash", "hash_of", "source_files", "texts", "versions"]

CODE = ("networks", "theory", "experiments", "auditing", "rewriting")
"""The parts of the package that a computed number can depend on."""

PACKAGES = ("numpy", "scipy", "torch", "tensorly", "matplotlib", "seaborn", "pandas")
"""The packages whose versions are recorded."""


def code_hash(layout: Layout = CLONE) -> str:
    """Return the SHA-256 of the code that a computed number can depend on: `CODE` and the lock."""
    return hash_of(source_files(layout, CODE))


def hash_of(parts: Iterable[tuple[str, bytes]]) -> str:
    """Return the SHA-256 of named contents, in their order."""
    total = hashlib.sha256()
    for name, content in parts:
        # The hash of the content has a fixed length, so no two lists of parts run together.
        total.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return total.hexdigest()


def source_files(layout: Layout, parts: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the Python files of some parts of the package, and the lock, with their contents."""
    files = [path for part in parts for path in _python(layout.source / part)]
    files += [layout.lock] if layout.lock.exists() else []
    return texts(files, layout.root)


def texts(paths: Iterable[Path], root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield text files with their places below `root` and their contents."""
    for path in paths:
        # A checkout with Windows line ends is the same source.
        yield path.relative_to(root).as_posix(), path.read_bytes().replace(b"\r\n", b"\n")


def _python(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.exists() else []


def versions() -> dict[str, str]:
    """Return the versions that are recorded: Python's without patch, torch's without build."""
    found = {name: version(name).partition("+")[0] for name in PACKAGES}
    return {"python": ".".join(platform.python_version_tuple()[:2]), **found}
