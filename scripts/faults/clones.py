"""A small clone to hurt, the command that runs in it, and what must be there afterwards."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from krratio.pipeline.layout import Layout
from tiny_clone import SAVE, entry, make_clone, make_notebook

__all__ = ["LIMIT", "Files", "Found", "committed", "fresh", "reproduce", "start", "undisturbed"]

Files = Mapping[str, str]
"""Names below the clone, and the SHA-256 of their contents."""

LIMIT = 120.0
"""Seconds that a run of the small clone may take before it counts as hanging."""

PROGRAM = """
import sys
from pathlib import Path
from krratio.cli import main
from krratio.pipeline.layout import Layout
sys.exit(main(sys.argv[2:], Layout(Path(sys.argv[1]))))
"""

NAMES = ("first", "second", "third")
WORK = "import time\nfor i in range(4):\n    time.sleep(0.05)\n    print(i * n)"


def fresh(root: Path, extra: Sequence[str] = ()) -> Layout:
    """Make a clone of three chapters with an old state; `extra` are cells of a fourth, bad one."""
    notebooks = {
        f"{i:02}_{name}": make_notebook(SAVE, WORK, f"save('{name}-line', range({i}, 900))")
        for i, name in enumerate(NAMES, start=1)
    }
    registry = {stem: entry(f"{stem[3:]}-line") for stem in notebooks}
    if extra:
        notebooks["04_bad"] = make_notebook(SAVE, *extra)
        registry["04_bad"] = entry("bad-line")
    layout = make_clone(root, notebooks, registry)
    for name in [figure for chapter in registry.values() for figure in chapter["figures"]]:
        for kind in ("svg", "png", "csv", "json"):
            (layout.figures / f"{name}.{kind}").write_text("old")
    return layout


def start(
    layout: Layout,
    *arguments: str,
    prefix: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> "subprocess.Popen[str]":
    """Start ``krratio`` on another tree, in a process group of its own."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", PROGRAM, str(layout.root), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **(environment or {})},
    )


def reproduce(
    layout: Layout,
    *arguments: str,
    prefix: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run ``krratio reproduce``; return its exit code and all that it said."""
    process = start(layout, "reproduce", *arguments, prefix=prefix, environment=environment)
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out + err


def committed(layout: Layout) -> dict[str, str]:
    """Return the hashes of all files in notebooks/, figures/ and data/, temporary ones too."""
    folders = (layout.notebooks, layout.figures, layout.data)
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(layout.root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


@dataclass(frozen=True)
class Found:
    """How a clone differs from what it must be: names of files."""

    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    wrong: tuple[str, ...]

    @classmethod
    def of(cls, found: Files, *allowed: Files) -> "Found":
        """Compare: every file must be there, as in one of `allowed`, and no other."""
        names = {name for files in allowed for name in files}
        return cls(
            lost=tuple(sorted(names - set(found))),
            doubled=tuple(sorted(set(found) - names)),
            wrong=tuple(
                sorted(
                    name
                    for name in names & set(found)
                    if found[name] not in {files.get(name) for files in allowed}
                )
            ),
        )


@dataclass(frozen=True)
class Undisturbed:
    """The small clone before and after a run that nothing disturbs."""

    before: Files
    after: Files
    seconds: float


@cache
def undisturbed() -> Undisturbed:
    """Run the small clone once in peace."""
    with TemporaryDirectory(prefix="undisturbed-") as folder:
        layout = fresh(Path(folder) / "clone")
        before = committed(layout)
        begin = time.monotonic()
        code, said = reproduce(layout)
        if code:
            raise RuntimeError(f"the small clone fails undisturbed, exit code {code}:\n{said}")
        return Undisturbed(before, committed(layout), time.monotonic() - begin)
