"""Lines of cells as aligned text."""

from collections.abc import Sequence

__all__ = ["columns"]


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as aligned text; the first line is the header."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    ruled = [lines[0], ["-" * width for width in widths], *lines[1:]]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in ruled
    )
    return "\n".join(line.rstrip() for line in padded)
