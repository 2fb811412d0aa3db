"""The environment of a notebook's process: what could change its results is fixed here."""

import os
from pathlib import Path

import matplotlib as mpl

__all__ = ["FIXED", "THREADS", "cores", "environment", "prepare_fonts"]

THREADS = 1
"""Threads of linear algebra per notebook, whatever the machine and ``--jobs``.

Sums over other numbers of threads round differently; cores are used by running notebooks beside
each other.
"""

FIXED = {
    "OMP_NUM_THREADS": str(THREADS),
    "OPENBLAS_NUM_THREADS": str(THREADS),
    "MKL_NUM_THREADS": str(THREADS),
    "NUMEXPR_NUM_THREADS": str(THREADS),
    "VECLIB_MAXIMUM_THREADS": str(THREADS),
    "PYTHONHASHSEED": "0",  # the order of sets of text
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}
"""Environment variables of every process whose results are kept."""

CLEARED = (
    "JUPYTER_PATH",  # a kernel of another environment could be found through these
    "JUPYTER_PREFER_ENV_PATH",
    "JUPYTER_CONFIG_PATH",
    "PYTHONSTARTUP",
    "MATPLOTLIBRC",
)


def environment(figures: Path, scratch: Path) -> dict[str, str]:
    """Return the environment for a notebook that saves its figures in `figures`.

    IPython and Jupyter get folders in `scratch`, so that no start-up file of the user runs and no
    history is written.
    """
    inherited = {key: value for key, value in os.environ.items() if key not in CLEARED}
    return {
        **inherited,
        **FIXED,
        "KRRATIO_FIGURES": str(figures),
        "IPYTHONDIR": str(scratch / "ipython"),
        "JUPYTER_CONFIG_DIR": str(scratch / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(scratch / "jupyter"),
        "MPLCONFIGDIR": mpl.get_cachedir(),
    }


def prepare_fonts() -> None:
    """Let matplotlib list the fonts of the machine, once.

    Where that takes long, or where the home folder cannot be written, matplotlib says so on
    stderr; in a notebook that would be an output.
    """
    from matplotlib import font_manager

    font_manager.fontManager.findfont("DejaVu Sans")


def cores() -> int:
    """Return on how many cores this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
