"""The environment: interpreter, packages, linear algebra, data, room."""

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from krratio.errors import KrratioError
from krratio.pipeline.doctoring.finding import Finding, Level
from krratio.pipeline.environment import cores
from krratio.pipeline.layout import Layout
from krratio.pipeline.runlog import processor

__all__ = ["data", "interpreter", "linear_algebra", "packages", "room"]

SETTINGS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "ATEN_CPU_CAPABILITY",
)
EXTRAS = {"parquet": "pyarrow", "safetensors": "safetensors", "sweeps": "distributed"}
FULL = ("fashion-mnist", "cifar10", "svhn")
DISK_GB, MEMORY_GB = 5.0, 2.0
"""Less free than this is worth a warning."""


def interpreter(layout: Layout) -> Finding:
    """Say which Python runs, and whether it is the clone's own."""
    is_ours = Path(sys.prefix).resolve() == (layout.root / ".venv").resolve()
    whose = "of this clone's .venv" if is_ours else f"in {sys.prefix}"
    fact = f"Python {platform.python_version()} {whose}, {platform.system()} {platform.machine()}"
    return Finding("interpreter", "ok" if is_ours else "warning", fact)


def packages(layout: Layout) -> Finding:
    """Compare what is installed with the lock."""
    lines = layout.lock.read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    other = [f"{name} {_installed(name)}, locked {pin}" for name, pin in pins if not _is(name, pin)]
    missing = [extra for extra, module in EXTRAS.items() if find_spec(module) is None]
    notes = other + [f"the extra {extra} is not installed" for extra in missing]
    fact = "; ".join(notes) if notes else f"all {len(pins)} as locked, with all extras"
    return Finding("packages", "warning" if notes else "ok", fact)


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _is(name: str, pin: str) -> bool:
    return _installed(name).partition("+")[0] == pin


def linear_algebra() -> Finding:
    """Say which BLAS and which instructions are used, with how many threads."""
    import numpy as np
    import torch

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    chosen = [f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ]
    fact = (
        f"numpy on {blas['name']} {blas['version']}, torch on "
        f"{torch.backends.cpu.get_cpu_capability()} with {torch.get_num_threads()} threads; "
        f"{processor()}, {cores()} cores; {', '.join(chosen) or 'no thread or kernel set'}"
    )
    return Finding("linear algebra", "ok", fact)


def data() -> Finding:
    """Check the embedded images, and say which full data sets are found; nothing is downloaded."""
    from krratio.experiments import datasets

    try:
        for split in ("train", "test"):
            datasets.load("fashion-mnist-subset", split)
    except KrratioError as error:
        return Finding("data", "failed", str(error))
    found = []
    for name in FULL:
        try:
            is_there = all(datasets.find(name, split) for split in ("train", "test"))
        except KrratioError as error:
            return Finding("data", "warning", str(error))
        found.append(f"{name} {'found' if is_there else 'not found'}")
    return Finding("data", "ok", f"embedded subset whole; {', '.join(found)}")


def room(layout: Layout) -> Finding:
    """Say what is free of disk and memory."""
    disk = shutil.disk_usage(layout.root).free / 1e9
    memory = _free_memory() / 1e9
    level: Level = "ok" if disk >= DISK_GB and memory >= MEMORY_GB else "warning"
    fact = (
        f"{disk:.1f} GB of disk, {memory:.1f} GB of memory free"
        f"{'' if level == 'ok' else f'; {DISK_GB:g} GB and {MEMORY_GB:g} GB are advised'}"
    )
    return Finding("room", level, fact)


def _free_memory() -> int:
    """Return free bytes; on systems that do not tell, all there are."""
    known = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf(known) * os.sysconf("SC_PAGE_SIZE")
