"""The function of a sweep: found by name, checked against its parameters, hashed with its code."""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from krratio.errors import GridError
from krratio.pipeline.code import code_hash, hash_of, texts
from krratio.pipeline.layout import CLONE

__all__ = ["CHECKPOINT", "check_call", "code_of", "find", "takes_checkpoint"]

CHECKPOINT = "checkpoint"
"""A function with a parameter of this name is given a `Checkpoint`."""

Function = Callable[..., Any]


def find(name: str, folder: Path | None = None) -> Function:
    """Import a function; `folder` is searched before everything else. This runs its module.

    Raises
    ------
    GridError
        If there is no such module or function; the message says which.
    """
    module_name, _, attribute = name.partition(":")
    if folder is not None:
        _search_first(folder, module_name.partition(".")[0])
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise GridError(
            f"function {name!r}: importing {module_name!r} raised {type(error).__name__}: {error}"
        ) from error
    found: Function | None = getattr(module, attribute, None)
    if not callable(found):
        raise GridError(f"function {name!r}: {module_name!r} has no callable {attribute!r}")
    return found


def _search_first(folder: Path, top: str) -> None:
    """Let `folder` be where a top-level module is looked for first, and forget one of elsewhere."""
    sys.path[:] = [str(folder), *(place for place in sys.path if place != str(folder))]
    is_there = (folder / f"{top}.py").is_file() or (folder / top).is_dir()
    loaded = getattr(sys.modules.get(top), "__file__", None)
    ours = {(folder / f"{top}.py").resolve(), (folder / top / "__init__.py").resolve()}
    if is_there and loaded and Path(loaded).resolve() not in ours:
        importlib.invalidate_caches()
        for known in [m for m in sys.modules if m.partition(".")[0] == top]:
            del sys.modules[known]


def takes_checkpoint(function: Function) -> bool:
    """Say whether the function asks for a checkpoint."""
    return CHECKPOINT in inspect.signature(function).parameters


def check_call(function: Function, names: Iterable[str], where: str) -> None:
    """Raise GridError if the function cannot be called with these keyword arguments."""
    if CHECKPOINT in names:
        raise GridError(f"{where}: parameter {CHECKPOINT!r} is filled in by the sweep; leave it")
    signature = inspect.signature(function)
    given = dict.fromkeys([*names, *([CHECKPOINT] if takes_checkpoint(function) else [])])
    try:
        signature.bind(**given)
    except TypeError as error:
        raise GridError(
            f"{where}: the function takes {signature}, and the grid gives "
            f"{', '.join(names) or 'nothing'}: {error}"
        ) from None


def code_of(name: str, folder: Path | None = None) -> str:
    """Return the hash of all that a result of the function can depend on.

    That is the code of the kit (`krratio.pipeline.provenance.code_hash`) and, for a function from
    elsewhere, every Python file of its top-level package, or, where that is a single file, every
    Python file beside it.
    """
    find(name, folder)
    top = sys.modules[name.partition(":")[0].partition(".")[0]]
    kit = code_hash(CLONE)
    if top.__name__ == "krratio" or not getattr(top, "__file__", None):
        return kit
    file = Path(str(top.__file__)).resolve()
    files = sorted(
        file.parent.rglob("*.py") if file.stem == "__init__" else file.parent.glob("*.py")
    )
    return hash_of([("krratio", kit.encode()), *texts(files, file.parent)])
