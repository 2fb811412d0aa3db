"""``notebooks/figures.yaml``: which notebook makes which figures, and with what in each profile.

The file is a mapping from the stem of a notebook to its entry::

    01_tensorized_cnn:
      title: From a convolution to one tensor
      figures:
        position-matrices: The matrices that pick and pool the patches
      profiles:                  # optional; only what differs from the parameters cell
        smoke: {samples: 20}
        full: {samples: 100000}
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from krratio.errors import ParameterError, RegistryError
from krratio.figure_ids import is_figure_id
from krratio.pipeline import yamlfile
from krratio.pipeline.inside import inside
from krratio.pipeline.layout import Layout

__all__ = ["PROFILES", "Chapter", "Registry", "load_registry"]

PROFILES = ("default", "smoke", "full")
"""``default`` is what the parameters cells say; the others override some of it."""

OVERRIDABLE = PROFILES[1:]
KEYS = ("title", "figures", "profiles")


@dataclass(frozen=True)
class Chapter:
    """One notebook of the registry: its figures with their titles, and overrides per profile."""

    stem: str
    title: str
    figures: Mapping[str, str]
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Registry:
    """All notebooks, in the order of the file."""

    chapters: tuple[Chapter, ...]

    def select(self, ids: Sequence[str]) -> tuple[Chapter, ...]:
        """Return the chapters that `ids` name by stem or by figure; all of them for no ids.

        Raises
        ------
        RegistryError
            If an id is neither a notebook nor a figure.
        """
        known = {name for c in self.chapters for name in (c.stem, *c.figures)}
        for name in ids:
            if name not in known:
                raise RegistryError(
                    f"{name!r} is neither a notebook nor a figure; known are "
                    f"{', '.join(sorted(known))}"
                )
        wanted = set(ids) or known
        return tuple(c for c in self.chapters if wanted & {c.stem, *c.figures})

    def chapter_of(self, figure_id: str) -> Chapter:
        """Return the chapter that makes a figure; RegistryError if there is none."""
        for chapter in self.chapters:
            if figure_id in chapter.figures:
                return chapter
        raise RegistryError(f"figure {figure_id!r} is not in the registry")


def load_registry(layout: Layout) -> Registry:
    """Read the registry and hold it against the notebooks on disk.

    Raises
    ------
    RegistryError
        If the file is missing or not of the form described above, if a figure id is malformed or
        used twice, or if the notebooks it names are not exactly those on disk.
    """
    registry = Registry(tuple(_chapter(stem, entry) for stem, entry in _read(layout).items()))
    for chapter in registry.chapters:
        _check_place(chapter.stem, layout)
    _check_ids(registry)
    _check_notebooks(registry, layout)
    return registry


def _read(layout: Layout) -> dict[Any, Any]:
    path = layout.registry
    try:
        content = yamlfile.read(path, RegistryError)
    except FileNotFoundError:
        raise RegistryError(
            f"{path} is missing; krratio reproduce works in a clone of the repository, "
            "installed from there with pip install -e ."
        ) from None
    if not isinstance(content, dict) or not content:
        raise RegistryError(f"{path}: expected a mapping from notebooks to entries")
    return content


def _chapter(stem: Any, entry: Any) -> Chapter:
    where = f"figures.yaml, notebook {stem!r}"
    if not isinstance(stem, str) or not isinstance(entry, dict):
        raise RegistryError(f"{where}: expected a name with a mapping of {', '.join(KEYS)}")
    _only(entry, KEYS, where)
    title = entry.get("title")
    if not isinstance(title, str) or not title.strip():
        raise RegistryError(f"{where}: title is {title!r}; give it a text")
    figures = _mapping(entry.get("figures", {}), f"{where}, figures")
    for figure_id, text in figures.items():
        if not is_figure_id(figure_id):
            raise RegistryError(f"{where}: figure id {figure_id!r} is not lower-case-with-dashes")
        if not isinstance(text, str) or not text.strip():
            raise RegistryError(f"{where}: figure {figure_id!r} has no title")
    profiles = _mapping(entry.get("profiles", {}), f"{where}, profiles")
    _only(profiles, OVERRIDABLE, f"{where}, profiles")
    overrides = {name: _mapping(p, f"{where}, profile {name}") for name, p in profiles.items()}
    return Chapter(stem, title, figures, overrides)


def _check_place(stem: str, layout: Layout) -> None:
    try:
        inside(layout.notebooks, f"{stem}.ipynb", f"figures.yaml, notebook {stem!r}")
    except ParameterError as error:
        raise RegistryError(str(error)) from None


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise RegistryError(f"{where}: expected a mapping with text keys, got {value!r}")
    return value


def _only(entry: Mapping[str, Any], allowed: Sequence[str], where: str) -> None:
    for key in entry:
        if key not in allowed:
            raise RegistryError(f"{where}: unknown key {key!r}; allowed are {', '.join(allowed)}")


def _check_ids(registry: Registry) -> None:
    names = Counter(name for c in registry.chapters for name in (c.stem, *c.figures))
    for name, times in names.items():
        if times > 1:
            raise RegistryError(f"figures.yaml: {name!r} names {times} notebooks or figures, not 1")


def _check_notebooks(registry: Registry, layout: Layout) -> None:
    registered = {chapter.stem for chapter in registry.chapters}
    on_disk = {path.stem for path in layout.notebooks.glob("*.ipynb")}
    for stem in sorted(registered - on_disk):
        raise RegistryError(f"figures.yaml names {stem!r}, but {layout.notebook(stem)} is missing")
    for stem in sorted(on_disk - registered):
        raise RegistryError(f"notebooks/{stem}.ipynb is not in figures.yaml; add it or remove it")
