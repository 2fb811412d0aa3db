"""A grid: one function, and every combination of values to call it with."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from krratio.errors import GridError
from krratio.pipeline.sweeping.function import check_call, code_of, find
from krratio.pipeline.sweeping.plain import plain, text
from krratio.pipeline.sweeping.task import Limits, Task

__all__ = ["Grid", "Show"]

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
LARGEST = 10_000_000
"""Tasks of one grid."""


@dataclass(frozen=True)
class Show:
    """What the live table shows.

    Attributes
    ----------
    value : str
        A number in the rows that the function returns.
    by : tuple of str
        Parameters, one row of the table for each combination of their values.
    best : {"max", "min"}
        Which value is the best.
    """

    value: str
    by: tuple[str, ...] = ()
    best: str = "max"


@dataclass(frozen=True)
class Grid:
    """Every combination of cases, parameters and seeds, in that order, the last one fastest.

    Attributes
    ----------
    name : str
        Lower case with dashes; the store is named after it.
    function : str
        ``module:name``, imported from `folder` first. It is called with keyword arguments, and
        returns one row, a mapping of names to scalars, or a list of rows.
    parameters : mapping
        Parameter -> list of its values.
    cases : sequence of mappings
        Values that belong together, instead of every combination of them.
    seeds : sequence of int
        Values of the parameter ``seed``; none for a function without.
    limits : Limits
        For each task.
    show : Show or None
        What the live table shows.
    folder : pathlib.Path or None
        Where the module of the function lies, if it is not installed.

    Raises
    ------
    GridError
        At construction, if a field is malformed; the message names it, its value and the rule.
    """

    name: str
    function: str
    parameters: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    cases: Sequence[Mapping[str, Any]] = ()
    seeds: Sequence[int] = ()
    limits: Limits = field(default_factory=Limits)
    show: Show | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        self._rule(
            isinstance(self.name, str) and NAME.fullmatch(self.name),
            "name",
            self.name,
            "lower-case-with-dashes",
        )
        self._rule(
            isinstance(self.function, str) and FUNCTION.fullmatch(self.function),
            "function",
            self.function,
            "module:name",
        )
        self._check_values()
        self._check_seeds()
        self._check_limits()
        self._check_show()
        if len(self) > LARGEST:
            raise GridError(f"{self._where}: it has {len(self):,} tasks; at most {LARGEST:,}")

    def __len__(self) -> int:
        total = max(len(self.cases), 1) * max(len(self.seeds), 1)
        for values in self.parameters.values():
            total *= len(values)
        return total

    @property
    def names(self) -> tuple[str, ...]:
        """The keyword arguments of every call, in the order of the columns."""
        cases = self.cases[0] if self.cases else {}
        return (*cases, *self.parameters, *(["seed"] if self.seeds else []))

    def tasks(self) -> Iterator[Task]:
        """Yield all tasks.

        Raises
        ------
        GridError
            If the function cannot be imported, or not called with these arguments.
        """
        check_call(find(self.function, self.folder), self.names, self._where)
        code = code_of(self.function, self.folder)
        cases = plain(self.cases or [{}], "cases")
        values = plain(list(self.parameters.values()), "parameters")
        seeds: Sequence[int | None] = self.seeds or [None]
        calls = itertools.product(cases, itertools.product(*values), seeds)
        for number, (case, combination, seed) in enumerate(calls):
            parameters = {**case, **dict(zip(self.parameters, combination, strict=True))}
            yield Task(number, self.function, code, parameters, seed)

    @property
    def _where(self) -> str:
        return f"grid {self.name!r}"

    def _rule(self, holds: object, name: str, value: Any, rule: str) -> None:
        if not holds:
            raise GridError(f"{self._where}: {name} is {value!r:.100}; give {rule}")

    def _check_values(self) -> None:
        is_mapping = isinstance(self.parameters, Mapping)
        self._rule(is_mapping, "parameters", self.parameters, "a mapping of names to lists")
        for name, values in self.parameters.items():
            listed = isinstance(values, list | tuple) and values
            self._rule(listed, f"parameters, {name!r}", values, "a list of at least one value")
            said = [text(self._plain(value, f"parameters, {name!r}")) for value in values]
            self._rule(
                len(set(said)) == len(said), f"parameters, {name!r}", values, "each value once"
            )
        self._rule(isinstance(self.cases, list | tuple), "cases", self.cases, "a list of mappings")
        for case in self.cases:
            same = isinstance(case, Mapping) and case and set(case) == set(self.cases[0])
            self._rule(same, "cases", case, "a list of mappings with the same names in all")
        said = [text(sorted(self._plain(case, "cases").items())) for case in self.cases]
        self._rule(len(set(said)) == len(said), "cases", self.cases, "each case once")
        for name in self.names:
            identifier = isinstance(name, str) and name.isidentifier()
            self._rule(identifier, "a parameter", name, "the name of an argument")
            once = self.names.count(name) == 1
            self._rule(once, "a parameter", name, "each name once; 'seed' comes from seeds")

    def _plain(self, value: Any, where: str) -> Any:
        try:
            return plain(value, where)
        except ValueError as error:
            raise GridError(f"{self._where}: {error}") from None

    def _check_seeds(self) -> None:
        seeds = self.seeds
        listed = isinstance(seeds, list | tuple | range) and all(
            type(seed) is int and 0 <= seed < 2**63 for seed in seeds
        )
        rule = "how many (0, 1, …), or a list of different integers from 0 on"
        self._rule(listed and len(set(seeds)) == len(seeds), "seeds", seeds, rule)

    def _check_limits(self) -> None:
        for name in ("seconds", "memory_mb"):
            value = getattr(self.limits, name)
            positive = value is None or (type(value) in (int, float) and 0 < value < 1e12)
            self._rule(positive, f"limits, {name!r}", value, "a positive number")

    def _check_show(self) -> None:
        if self.show is None:
            return
        self._rule(isinstance(self.show.value, str), "show, 'value'", self.show.value, "a name")
        self._rule(self.show.best in ("max", "min"), "show, 'best'", self.show.best, "max or min")
        for name in self.show.by:
            known = name in self.names
            self._rule(known, "show, 'by'", name, f"parameters, of {', '.join(self.names)}")
