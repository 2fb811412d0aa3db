"""The run log: what a committed file must not hold because it differs from run to run."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from krratio.pipeline.code import PACKAGES
from krratio.pipeline.layout import Layout

__all__ = ["append", "processor"]


def append(layout: Layout, runs: list[dict[str, Any]]) -> None:
    """Append `runs` to the log, one line each, with time, commit, machine and versions."""
    common = _circumstances(layout)
    layout.runs.mkdir(parents=True, exist_ok=True)
    with layout.log.open("a", encoding="utf-8") as log:
        log.writelines(json.dumps({**common, **run}, sort_keys=True) + "\n" for run in runs)


def _circumstances(layout: Layout) -> dict[str, Any]:
    commit = _git(layout.root, "rev-parse", "HEAD")
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "modified": bool(_git(layout.root, "status", "--porcelain")) if commit else None,
        "machine": {
            "system": platform.platform(),
            "processor": processor(),
            "cores": os.cpu_count(),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
    }


def _git(folder: Path, *command: str) -> str | None:
    """Return what git says; None where there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *command],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def processor() -> str:
    """Return the processor's name; Linux keeps it in a file, other systems tell Python."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
