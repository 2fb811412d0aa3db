"""Means of independent values with their intervals."""

import math

from scipy import stats
from torch import Tensor

__all__ = ["mean_interval"]


def mean_interval(
    name: str, values: Tensor, *, level: float = 0.95, student: bool = False
) -> dict[str, float]:
    """Mean of independent values and its interval, as the columns name, name_low and name_high.

    Parameters
    ----------
    name
        Of the columns.
    values
        (m,) independent, of one distribution.
    level
        Of the interval.
    student
        Take Student's quantile, for few values; else the normal one.
    """
    m = len(values)
    quantiles = stats.t(m - 1) if student else stats.norm
    mean, error = float(values.mean()), float(values.std()) / math.sqrt(m)
    half = float(quantiles.ppf((1 + level) / 2)) * error
    return {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}
