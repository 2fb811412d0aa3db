"""Paths that come from a configuration stay inside the folder they are meant for."""

from pathlib import Path, PurePosixPath, PureWindowsPath

from krratio.errors import ParameterError

__all__ = ["inside"]


def inside(folder: Path, name: str, what: str) -> Path:
    """Return ``folder / name`` if that lies in `folder`, links followed.

    Parameters
    ----------
    folder
        Where it must lie.
    name
        A relative path, as a configuration file gives it.
    what
        What it is, for the message: ``grid 'a.yaml', store``.

    Raises
    ------
    ParameterError
        If `name` is empty or absolute, climbs out by ``..``, or leads out through a link.
    """
    parts = PurePosixPath(name.replace("\\", "/"))
    rooted = parts.is_absolute() or PureWindowsPath(name).drive or "\0" in name
    path = folder / parts
    if not parts.name or rooted or ".." in parts.parts or not _lies_in(path, folder):
        raise ParameterError(
            f"{what} is {name!r}; give a relative path that stays inside {folder}, "
            "without '..' and without links that lead out"
        )
    return path


def _lies_in(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
