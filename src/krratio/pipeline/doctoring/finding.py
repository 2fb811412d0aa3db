"""One thing that was looked at."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Level"]

Level = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and the fact.

    Attributes
    ----------
    name : str
    level : {"ok", "warning", "failed"}
        ``warning`` for what may be meant, ``failed`` for what makes results untrustworthy.
    fact : str
    """

    name: str
    level: Level
    fact: str
