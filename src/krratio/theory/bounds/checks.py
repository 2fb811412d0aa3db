"""Checks that the bounds share: finite positive numbers and arrays, probabilities."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Numbers", "at_least", "positive", "probability"]

Numbers = float | int | Sequence[float | int] | NDArray[Any]
"""What the bounds take: scalars, lists and arrays, which broadcast."""


def positive(name: str, value: Numbers) -> NDArray[np.float64]:
    """Return an array of finite positive numbers, or refuse it by name."""
    array = np.asarray(value, dtype=np.float64)
    bad = array[~(np.isfinite(array) & (array > 0))]
    if bad.size:
        raise ValueError(f"{name}={float(bad.flat[0])}: finite numbers above 0 are needed.")
    return array


def at_least(name: str, value: Numbers, floor: Numbers, what: str) -> NDArray[np.float64]:
    """Return an array of finite numbers that reach the floor, called ``what``, or refuse it."""
    array, floor = np.broadcast_arrays(positive(name, value), np.asarray(floor, dtype=np.float64))
    bad = array < floor
    if bad.any():
        given, needed = float(array[bad][0]), float(floor[bad][0])
        raise ValueError(f"{name}={given:.6g}: at least {what} = {needed:.6g} is needed.")
    return array


def probability(name: str, value: Numbers) -> NDArray[np.float64]:
    """Return an array of numbers strictly between 0 and 1, or refuse it by name."""
    array = np.asarray(value, dtype=np.float64)
    bad = array[~((array > 0) & (array < 1))]
    if bad.size:
        raise ValueError(f"{name}={float(bad.flat[0])}: numbers between 0 and 1 are needed.")
    return array
