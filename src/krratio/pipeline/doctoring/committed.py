"""What is committed: figures that the notebooks make, and records."""

import re

from krratio.errors import KrratioError
from krratio.pipeline import nbfile
from krratio.pipeline.doctoring.finding import Finding
from krratio.pipeline.layout import Layout
from krratio.pipeline.parameters import parameters_of
from krratio.pipeline.provenance import differences, origin, source_hash
from krratio.pipeline.records import records
from krratio.pipeline.registry import Chapter, load_registry

__all__ = ["figures", "recorded"]

_SHOWN = 3
"""So many are named; of the others there is the number."""


def figures(layout: Layout) -> Finding:
    """Compare the committed figures with their provenance, and that with the notebooks.

    A file that is missing or not the recorded one has ``failed``; a figure whose source changed
    since is a ``warning``, as it may be meant.
    """
    damaged: list[str] = []
    stale: list[str] = []
    count = 0
    try:
        for chapter in load_registry(layout).chapters:
            for reasons in _reasons(chapter, layout):
                count += 1
                files = [reason for reason in reasons if re.match(r"\S+\.\w+ is ", reason)]
                damaged += files
                stale += [chapter.stem] * bool(reasons and not files)
    except KrratioError as error:
        return Finding("figures", "failed", str(error))
    if damaged:
        advice = "restore from git or krratio reproduce"
        return Finding("figures", "failed", f"{_some(damaged)}; {advice}")
    if stale:
        changed = _some(list(dict.fromkeys(stale)))
        return Finding("figures", "warning", f"other sources now than those that made {changed}")
    return Finding("figures", "ok", f"all {count} as the notebooks make them")


def _reasons(chapter: Chapter, layout: Layout) -> list[list[str]]:
    """Return for each figure of a chapter why it is not current."""
    notebook = nbfile.read(layout.notebook(chapter.stem))
    source = source_hash(layout, chapter, notebook)
    parameters = parameters_of(notebook, chapter.stem)
    made_from = [
        origin(chapter, figure_id, profile="default", source=source, parameters=parameters)
        for figure_id in chapter.figures
    ]
    return [differences(one, layout.figures) for one in made_from]


def recorded(layout: Layout) -> Finding:
    """Compare the records with what vouches for them."""
    try:
        found = records(layout)
    except KrratioError as error:
        return Finding("records", "failed", str(error))
    wrong = [f"{record.table} is {record.state}" for record in found if record.state != "whole"]
    if wrong:
        return Finding("records", "failed", f"{_some(wrong)}; restore from git")
    return Finding("records", "ok", f"all {len(found)} tables whole")


def _some(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
