"""What came out of a run, as a value and as a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from krratio.pipeline.columns import columns
from krratio.pipeline.unit import Status

__all__ = ["Report", "Row", "table"]

HEADER = ("figure", "notebook", "status", "seconds", "committed data")


@dataclass(frozen=True)
class Row:
    """One figure of one run.

    Attributes
    ----------
    figure, notebook : str
        A dash stands for a notebook without figures, or a figure without notebook.
    status : Status
        ``new``: there was none. ``same``: the files were left untouched. ``changed``: they were
        replaced. ``failed``: its notebook failed. ``missing``: its notebook did not save it.
        ``unregistered``: it was saved, or lies among the figures, without being in the registry.
    seconds : float
        What its notebook took.
    data : str
        Whether the plotted numbers are those of the committed CSV: ``equal``, ``differ``, or
        ``none`` where one of the two does not exist.
    """

    figure: str
    notebook: str
    status: Status
    seconds: float
    data: str


@dataclass(frozen=True)
class Report:
    """The rows of all figures and a message for each failure."""

    rows: tuple[Row, ...]
    failures: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures


def table(rows: Sequence[Row]) -> str:
    """Return the rows as aligned text with a header."""
    return columns(
        [HEADER] + [(r.figure, r.notebook, r.status, f"{r.seconds:.1f}", r.data) for r in rows]
    )
