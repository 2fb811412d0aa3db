"""Faults that are really injected, and how much was lost, doubled or wrong afterwards.

Each module of `faults.registry` holds ``FAULTS``, a tuple of `Fault`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from numpy.random import Generator

__all__ = ["Fault", "Inject", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """What became of a fault that was injected some times.

    Attributes
    ----------
    injected
        How often it was really there; 0 if it cannot be made on this machine, and `said` why not.
    lost, doubled, wrong
        Results, files or rows that were finished and are gone, that are there twice, or that are
        other than in an undisturbed run without anything saying so. All must be 0.
    said
        What happened, in a few words: what a user reads, and how the work went on.
    """

    injected: int
    lost: int
    doubled: int
    wrong: int
    said: str

    @property
    def harmless(self) -> bool:
        """Whether nothing was lost, doubled or wrong."""
        return not (self.lost or self.doubled or self.wrong)


Inject = Callable[[Path, int, Generator], Outcome]
"""Injects a fault some times, in an empty folder, at moments and places that the generator draws.

It compares with an undisturbed run of its own, ends every process that it starts, and raises
nothing: an error of it is an error of the harness.
"""


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes
    ----------
    name
        Lower-case words joined by dashes.
    target
        What it hits: ``a kernel``, ``the driver``, ``a notebook file``.
    what
        What is done to it, in a few words.
    inject
        Does it.
    quick, thorough
        How often in the tests, in seconds, and in ``make soak``, in minutes.
    """

    name: str
    target: str
    what: str
    inject: Inject
    quick: int
    thorough: int
