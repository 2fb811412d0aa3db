"""The table of a sweep: how many, mean and best, for each combination of some parameters."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from krratio.pipeline.columns import columns
from krratio.pipeline.store import Store
from krratio.pipeline.sweeping.grid import Show
from krratio.pipeline.sweeping.plain import from_text, text
from krratio.pipeline.sweeping.task import Task

__all__ = ["Summary", "summary_of"]


@dataclass
class _Group:
    count: int = 0
    mean: float = 0.0
    spread: float = 0.0  # sum of squared deviations
    best: float = math.nan
    best_task: str = ""

    def add(self, value: float, is_better: bool, task: Task) -> None:
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self.spread += step * (value - self.mean)
        if is_better:
            self.best, self.best_task = value, str(task.number)


@dataclass
class Summary:
    """Running statistics of one value in the last row of each task; others are passed over."""

    show: Show
    groups: dict[str, _Group] = field(default_factory=dict)

    def add(self, task: Task, rows: Sequence[Mapping[str, Any]] | None) -> None:
        """Count one finished task."""
        value = rows[-1].get(self.show.value) if rows else None
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            return
        given = {**task.parameters, "seed": task.seed}
        group = self.groups.setdefault(text([given[name] for name in self.show.by]), _Group())
        sign = 1 if self.show.best == "max" else -1
        is_better = group.count == 0 or sign * value > sign * group.best
        group.add(float(value), is_better, task)

    def table(self) -> str:
        """Return the statistics as aligned text: mean ± standard error, best and its task."""
        header = (*self.show.by, "n", f"mean {self.show.value}", "±", self.show.best, "task")
        lines: list[Sequence[str]] = [header]
        for said, group in sorted(self.groups.items(), key=lambda item: from_text(item[0])):
            error = (
                math.sqrt(group.spread / (group.count - 1) / group.count)
                if group.count > 1
                else math.nan
            )
            values = [value if isinstance(value, str) else text(value) for value in from_text(said)]
            numbers = (f"{group.mean:.6g}", f"{error:.2g}", f"{group.best:.6g}")
            lines.append((*values, str(group.count), *numbers, group.best_task))
        return columns(lines)


def summary_of(store: Store) -> Summary | None:
    """Return the table over all that is done in a store; None if its grid shows none."""
    show = store.facts().get("show")
    if show is None:
        return None
    found = Summary(Show(**{**show, "by": tuple(show["by"])}))
    for row in store.rows("done"):
        found.add(row.task, row.rows)
    return found
