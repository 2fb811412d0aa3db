"""Text of somebody else's, such as names of modules, for a terminal."""

__all__ = ["printable"]


def printable(text: str) -> str:
    """The same with control characters written out, so that they control nothing."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
