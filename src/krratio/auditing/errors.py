"""What an audit refuses."""

from krratio.errors import KrratioError

__all__ = ["ForwardError", "ModelError"]


class ForwardError(KrratioError, RuntimeError):
    """The forward of a network fails on shapes alone."""


class ModelError(KrratioError, ValueError):
    """What was to be audited is no network, or cannot be imported, built or loaded."""
