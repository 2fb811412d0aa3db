"""What can go wrong, by name; every message says what was given, what is allowed and what to do."""

__all__ = [
    "BusyError",
    "ClusterError",
    "CorruptDataError",
    "FigureError",
    "GridError",
    "KrratioError",
    "MemoryLimitError",
    "MissingDataError",
    "MissingExtraError",
    "NonFiniteError",
    "NotAPathError",
    "NotebookError",
    "ParameterError",
    "RegistryError",
    "ShapeError",
    "StoreError",
    "UnsupportedModuleError",
]


class KrratioError(Exception):
    """Base class of every error that krratio raises on purpose."""


class UnsupportedModuleError(KrratioError, ValueError):
    """A module is nonlinear, in training mode, or has no rule; the message holds its path."""


class ShapeError(KrratioError, ValueError):
    """Two shapes that must agree do not; the message holds both and the layer."""


class NotAPathError(KrratioError, ValueError):
    """The network is not a path of layers, so its weights are not one low-rank tensor."""


class NonFiniteError(KrratioError, ValueError):
    """A parameter or buffer holds NaN or infinity; the message holds its name."""


class MemoryLimitError(KrratioError, MemoryError):
    """The result would be larger than the limit; the message holds both sizes."""


class MissingDataError(KrratioError, FileNotFoundError):
    """A data file was not found; the message says which, where it may lie and how to get it."""


class CorruptDataError(KrratioError, ValueError):
    """A data file is truncated, altered or of another shape; the message names it."""


class MissingExtraError(KrratioError, ImportError):
    """An optional package is missing; the message names the extra that brings it."""


class RegistryError(KrratioError, ValueError):
    """The figure registry contradicts itself or what a notebook saved."""


class ParameterError(KrratioError, ValueError):
    """A notebook parameter is unknown or of the wrong type."""


class NotebookError(KrratioError, RuntimeError):
    """A notebook failed or its outputs cannot be kept; the message names notebook and cell."""


class FigureError(KrratioError, ValueError):
    """A figure cannot be saved under this id or with these data."""


class BusyError(KrratioError, RuntimeError):
    """Another process is writing there; the message says which, since when and what to do."""


class ClusterError(KrratioError, RuntimeError):
    """The scheduler or the workers of a sweep are gone or unfit; the message says what to do."""


class GridError(KrratioError, ValueError):
    """A grid of tasks is malformed; the message names the field, the value and the rule."""


class StoreError(KrratioError, RuntimeError):
    """A store of results cannot be used; the message names the file and says what to do."""
