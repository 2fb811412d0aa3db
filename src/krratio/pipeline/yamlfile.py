"""YAML from a file that somebody wrote: plain values only, each key once, of bounded size."""

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from krratio.errors import KrratioError

__all__ = ["LARGEST", "read"]

LARGEST = 200_000
"""Bytes; the registry has 10,000."""

DEEPEST = 20
"""Levels of mappings and lists."""


class _UniqueKeys(yaml.SafeLoader):
    """YAML without tags, but a key given twice is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep=deep)
        if len(found) < len(node.value):
            seen = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            twice = [key for key, times in seen.items() if times > 1] or ["a key"]
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"{twice[0]!r} is given twice in the mapping at line {line}")
        return found


def read(path: Path, error: type[KrratioError]) -> Any:
    """Return what a YAML file holds, as plain values.

    Raises
    ------
    error
        If it is no YAML, too large or too deep, gives a key twice, or has tags or aliases; the
        message names the file and the line.
    FileNotFoundError
        If there is no such file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except (IsADirectoryError, ValueError) as problem:
        raise error(f"{path} is no file that can be read: {problem}") from None
    if len(content) > LARGEST:
        raise error(f"{path} has more than {LARGEST:,} bytes; that is no file of this kind")
    try:
        text = content.decode("utf-8")
        _check_bounds(text)
        # A subclass of SafeLoader: nothing but plain values can be built.
        return yaml.load(text, Loader=_UniqueKeys)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as problem:
        raise error(f"{path}: {problem}") from None


def _check_bounds(text: str) -> None:
    """Refuse what is too deep, tags, and aliases: a few lines of these can mean gigabytes."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        where = f"line {event.start_mark.line + 1}" if event.start_mark else "it"
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"{where} has an alias (*name); write it out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise yaml.YAMLError(f"{where} has a tag ({tag}); write plain values")
        if depth > DEEPEST:
            raise yaml.YAMLError(f"{where} lies more than {DEEPEST} levels deep")
