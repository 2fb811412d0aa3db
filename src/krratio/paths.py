"""Where things lie in a clone: one place that knows the layout."""

from pathlib import Path

__all__ = [
    "BENCHMARKS",
    "CACHE",
    "DATA",
    "FIGURES",
    "LOCK",
    "NOTEBOOKS",
    "REGISTRY",
    "ROOT",
    "RUNS",
    "SOURCE",
]

SOURCE: Path = Path(__file__).resolve().parent
"""The package folder, ``src/krratio``."""

ROOT: Path = SOURCE.parents[1]
"""The clone that the package is installed from (editable)."""

NOTEBOOKS: Path = ROOT / "notebooks"
REGISTRY: Path = NOTEBOOKS / "figures.yaml"
FIGURES: Path = ROOT / "figures"
DATA: Path = ROOT / "data"
CACHE: Path = DATA / "cache"
BENCHMARKS: Path = ROOT / "benchmarks" / "results"
RUNS: Path = ROOT / "runs"
LOCK: Path = ROOT / "requirements.lock"
