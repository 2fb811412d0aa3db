"""What tasks will cost, from what their like has cost."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from krratio.pipeline.storing.row import Row
from krratio.pipeline.sweeping.plain import text
from krratio.pipeline.sweeping.task import Task

__all__ = ["Costs"]


@dataclass
class _Mean:
    total: float = 0.0
    count: int = 0

    def add(self, seconds: float) -> None:
        self.total += seconds
        self.count += 1


@dataclass
class Costs:
    """Mean seconds of recorded tasks: with the same parameters, else of all of them."""

    _of: dict[str, _Mean] = field(default_factory=dict)
    _all: _Mean = field(default_factory=_Mean)

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "Costs":
        """Return the costs recorded in `rows`, whatever code they ran."""
        found = cls()
        for row in rows:
            if row.status == "done" and row.seconds is not None:
                found._of.setdefault(_group(row.task.parameters), _Mean()).add(row.seconds)
                found._all.add(row.seconds)
        return found

    def seconds(self, task: Task) -> float | None:
        """Return what the task should take; None if nothing like it was ever run."""
        mean = self._of.get(_group(task.parameters), self._all)
        return mean.total / mean.count if mean.count else None


def _group(parameters: Mapping[str, Any]) -> str:
    return text(sorted(parameters.items()))
