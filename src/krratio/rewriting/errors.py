"""What a rewriting refuses."""

from krratio.errors import KrratioError

__all__ = ["DecomposeError", "FoldError"]


class DecomposeError(KrratioError, ValueError):
    """A network cannot be decomposed as asked; the message says what was given and is allowed."""


class FoldError(KrratioError, ValueError):
    """A network cannot be folded at all."""
