"""From an error to a number of samples, and back."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from krratio.theory.bounds.checks import Numbers, positive, probability
from krratio.theory.bounds.upper import isometry

__all__ = ["error_bound", "sample_size"]

Kind = Literal["law", "upper", "lower"]


def error_bound(
    dimension: Numbers,
    *,
    n: Numbers,
    noise: Numbers,
    confidence: Numbers = 0.95,
    kind: Kind = "law",
) -> NDArray[np.float64]:
    """RMS excess prediction error at n samples.

    Parameters
    ----------
    dimension
        ``"law"``: the intrinsic dimension. ``"upper"``: the covering exponent of the differences,
        that is of the class at doubled ranks. ``"lower"``: the dimension of a linear space in the
        class (:func:`frozen_matrix` and its like).
    n
        Samples.
    noise
        Standard deviation sigma of the noise.
    confidence
        Probability with which the error stays below ``"law"`` and ``"upper"``; ``"lower"`` is a
        bound on the root mean square and does not depend on it.
    kind
        ``"law"``: n err^2 / sigma^2 is chi-squared with `dimension` degrees of freedom, exactly for
        linear classes, in the limit for smooth points of others. ``"upper"``: holds for every n
        (:func:`isometry`). ``"lower"``: no estimator is better over the whole class.

    Returns
    -------
    ndarray
        In the units of `noise`; arguments broadcast.

    Raises
    ------
    ValueError
        A number is NaN, infinite, zero or negative, the confidence is not between 0 and 1, or the
        kind is unknown.
    """
    unit = _unit(dimension, confidence, kind)
    error: NDArray[np.float64] = positive("noise", noise) * unit / np.sqrt(positive("n", n))
    return error


def sample_size(
    dimension: Numbers,
    *,
    noise: Numbers,
    error: Numbers,
    confidence: Numbers = 0.95,
    kind: Kind = "law",
) -> NDArray[np.float64]:
    """Samples at which :func:`error_bound` equals `error`; its inverse, not rounded.

    Parameters
    ----------
    dimension, noise, confidence, kind
        As in :func:`error_bound`.
    error
        RMS excess prediction error, in the units of `noise`.

    Raises
    ------
    ValueError
        As :func:`error_bound`.
    """
    unit = _unit(dimension, confidence, kind)
    samples: NDArray[np.float64] = (positive("noise", noise) * unit) ** 2
    return np.asarray(samples / positive("error", error) ** 2)


def _unit(dimension: Numbers, confidence: Numbers, kind: Kind) -> NDArray[np.float64]:
    """Error at one sample and noise one."""
    d, level = positive("dimension", dimension), probability("confidence", confidence)
    if kind == "law":
        return np.asarray(np.sqrt(stats.chi2.ppf(level, d)))
    if kind == "upper":
        return isometry(d, n=1, noise=1, confidence=level)
    if kind == "lower":
        return np.asarray(np.sqrt(d))
    raise ValueError(f"kind={kind!r}: 'law', 'upper' or 'lower' is needed.")
