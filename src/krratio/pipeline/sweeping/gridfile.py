"""A grid from a file: YAML, or Python that makes one.

A YAML file is a mapping::

    name: risk-of-bottlenecks           # the file's name if left out
    function: krratio.experiments.law:measure   # or a module beside the file
    parameters: {rank: [1, 2], ratio: [1, 2, 4]}
    cases:                              # values that belong together
      - {height: 5, width: 7}
    seeds: 5                            # 0 to 4, or a list
    limits: {seconds: 600, memory_mb: 2000}
    show: {value: risk, by: [ratio], best: min}

A Python file sets ``GRID`` to a `Grid`; it is run.
"""

import runpy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from krratio.errors import GridError
from krratio.pipeline import yamlfile
from krratio.pipeline.sweeping.grid import Grid, Show
from krratio.pipeline.sweeping.task import Limits

__all__ = ["load_grid"]

KEYS = ("name", "function", "parameters", "cases", "seeds", "limits", "show")
MOST_SEEDS = 1_000_000


def load_grid(path: Path) -> Grid:
    """Read a grid; the file's folder is where its function is looked for first.

    Raises
    ------
    GridError
        If there is no such file, or it is malformed; the message names file, field, value, rule.
    """
    if path.suffix not in (".yaml", ".yml", ".py"):
        raise GridError(f"{path}: give a grid as a .yaml or a .py file")
    if not path.is_file():
        raise GridError(f"{path}: there is no such file")
    grid = _from_python(path) if path.suffix == ".py" else _from_yaml(path)
    return replace(grid, folder=path.resolve().parent) if grid.folder is None else grid


def _from_python(path: Path) -> Grid:
    try:
        found = runpy.run_path(str(path)).get("GRID")
    except GridError:
        raise
    except Exception as error:
        raise GridError(f"{path}: running it raised {type(error).__name__}: {error}") from error
    if not isinstance(found, Grid):
        raise GridError(f"{path}: GRID is {found!r:.100}; set it to a krratio.Grid")
    return found


def _from_yaml(path: Path) -> Grid:
    content = _mapping(yamlfile.read(path, GridError), KEYS, f"{path}")
    if "function" not in content:
        raise GridError(f"{path}: function is missing; give module:name")
    entries = {"name": path.stem.lower().replace("_", "-"), **content}
    entries["seeds"] = _seeds(entries.get("seeds", ()), path)
    entries["limits"] = _limits(entries.get("limits", {}), path)
    entries["show"] = _show(entries.get("show"), path)
    try:
        return Grid(**entries)
    except GridError as error:
        raise GridError(f"{path}, {error}") from None


def _seeds(value: Any, path: Path) -> Any:
    if type(value) is int:
        if not 0 <= value <= MOST_SEEDS:
            raise GridError(f"{path}: seeds is {value}; give 0 to {MOST_SEEDS:,}, or a list")
        return range(value)
    return value


def _limits(value: Any, path: Path) -> Limits:
    return Limits(**_mapping(value, [f.name for f in fields(Limits)], f"{path}, limits"))


def _show(value: Any, path: Path) -> Show | None:
    if value is None:
        return None
    found = _mapping(value, [f.name for f in fields(Show)], f"{path}, show")
    by = found.get("by", [])
    if "value" not in found or not isinstance(by, list):
        raise GridError(f"{path}, show is {value!r:.100}; give a value, and by as a list")
    return Show(**{**found, "by": tuple(by)})


def _mapping(value: Any, allowed: "tuple[str, ...] | list[str]", where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise GridError(f"{where} is {value!r:.100}; give a mapping of {', '.join(allowed)}")
    for key in value:
        if key not in allowed:
            raise GridError(f"{where}: unknown key {key!r}; allowed are {', '.join(allowed)}")
    return value
