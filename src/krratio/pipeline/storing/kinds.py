"""What a column of an export holds, so that its cells come back as they were."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from krratio.pipeline.sweeping.plain import from_text, text

__all__ = ["Kind", "cell", "kind_of", "value"]

Kind = Literal["int", "float", "bool", "text", "json"]
_KINDS: dict[type, Kind] = {int: "int", float: "float", bool: "bool", str: "text"}


def kind_of(values: Iterable[Any]) -> Kind:
    """Return the kind of a column: that of all its values but None, or ``json`` if they differ."""
    found = {type(value) for value in values if value is not None}
    if len(found) != 1:
        return "json"
    kind = _KINDS.get(found.pop(), "json")
    present = [value for value in values if value is not None]
    if kind == "text" and not all(value and value.isprintable() for value in present):
        return "json"  # an empty cell is None, and a line break is best escaped
    return "json" if kind == "int" and not _fit(present) else kind


def _fit(values: Sequence[int]) -> bool:
    """Say whether all integers have 64 bits, which is what other programs read."""
    return all(-(2**63) <= value < 2**63 for value in values)


def cell(value: Any, kind: Kind) -> str:
    """Return a value as the text of a cell; None is empty."""
    if value is None:
        return ""
    return str(value) if kind == "text" else text(value)


def value(said: str, kind: Kind) -> Any:
    """Return the value of a cell."""
    if said == "":
        return None
    return said if kind == "text" else from_text(said)
