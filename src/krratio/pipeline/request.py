"""What a worker is asked to do."""

import json
from dataclasses import asdict, dataclass

__all__ = ["CELL_TIMEOUT", "Request"]

CELL_TIMEOUT = 1800.0
"""Seconds that one cell may take by default."""


@dataclass(frozen=True)
class Request:
    """One notebook to execute; all of it plain values, so that it can be sent as text.

    Attributes
    ----------
    notebook : str
        Its JSON text, parameters set, without outputs.
    folder : str
        Where relative paths in it start.
    output, rejected : str
        Files for the executed notebook and for one that failed.
    cell_timeout : float or None
        Seconds that one cell may take.
    executable, prefix : str
        The interpreter that the kernel must be.
    places : list of str
        Folders that no output may name.
    """

    notebook: str
    folder: str
    output: str
    rejected: str
    cell_timeout: float | None
    executable: str
    prefix: str
    places: list[str]

    def to_line(self) -> str:
        """Return the request as one line of JSON."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> "Request":
        """Return the request that `to_line` wrote."""
        return cls(**json.loads(line))
