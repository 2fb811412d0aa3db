"""Checks that the bounds share: finite positive numbers and arrays, probabilities."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Numbers", "positive", "probability"]

Numbers = float | int | Sequence[float | int] | NDArray[Any]
"""What the bounds take: scalars, lists and arrays, which broadcast."""


def positive(name: str, value: Numbers) -> NDArray[np.float64]:
    """Return an array of finite positive numbers, or refuse it by name."""
    array = np.asarray(value, dtype=np.float64)
    bad = array[~(np.isfinite(array) & (array > 0))]
    if bad.size:
        raise ValueError(f"{name}={float(bad.flat[0])}: finite numbers above 0 are needed.")
    return array


def probability(name: str, value: Numbers) -> NDArray[np.float64]:
    """Return an array of numbers strictly between 0 and 1, or refuse it by name."""
    array = np.asarray(value, dtype=np.float64)
    bad = array[~((array > 0) & (array < 1))]
    if bad.size:
        raise ValueError(f"{name}={float(bad.flat[0])}: numbers between 0 and 1 are needed.")
    return array
