"""From an error to a number of samples, and back."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from krratio.theory.bounds.checks import Numbers, at_least, positive, probability
from krratio.theory.bounds.upper import isometry
from krratio.theory.counts.values import size

__all__ = ["error_bound", "sample_size"]

Kind = Literal["law", "upper", "lower"]


def error_bound(
    dimension: Numbers,
    *,
    n: Numbers,
    noise: Numbers,
    confidence: Numbers = 0.95,
    kind: Kind = "law",
    factors: int = 3,
    outputs: int = 1,
) -> NDArray[np.float64]:
    """RMS excess prediction error at n samples: in the sample, the square summed over outputs.

    Parameters
    ----------
    dimension
        ``"law"``: the intrinsic dimension. ``"upper"``: the covering exponent of the differences,
        that is of the class at doubled ranks. ``"lower"``: the dimension of a linear space in the
        class (:func:`frozen_matrix` and its like).
    n
        Samples; for ``"law"`` and ``"lower"`` at least `dimension` / `outputs`, since fewer
        equations do not see it.
    noise
        Standard deviation sigma of the noise, Gaussian and independent.
    confidence
        Probability with which the error stays below ``"law"`` and ``"upper"``; ``"lower"`` is a
        bound on the root mean square and does not depend on it.
    kind
        ``"law"``: n err^2 / sigma^2 is chi-squared with `dimension` degrees of freedom, exactly for
        linear classes, in the limit for smooth points of others. ``"upper"``: for every n, for the
        global minimum over matrices, Tucker tensors or tensor trains, if the Gram is the identity
        on them (:func:`isometry`). ``"lower"``: no estimator is better over the whole class.
    factors
        h of :func:`isometry`, for ``"upper"``: 3 for matrices, 1 + number of factors for Tucker,
        number of cores for tensor trains.
    outputs
        T, what each sample observes.

    Returns
    -------
    ndarray
        In the units of `noise`; arguments broadcast.

    Raises
    ------
    ValueError
        A number is NaN, infinite, zero or negative, n is below `dimension` / `outputs`, the
        confidence is not between 0 and 1, or the kind is unknown.
    """
    unit, n = _unit(dimension, confidence, kind, factors), positive("n", n)
    if kind != "upper":
        needed = positive("dimension", dimension) / size("outputs", outputs)
        n = at_least("n", n, needed, "dimension / outputs")
    error: NDArray[np.float64] = positive("noise", noise) * unit / np.sqrt(n)
    return error


def sample_size(
    dimension: Numbers,
    *,
    noise: Numbers,
    error: Numbers,
    confidence: Numbers = 0.95,
    kind: Kind = "law",
    factors: int = 3,
    outputs: int = 1,
) -> NDArray[np.float64]:
    """Samples at which :func:`error_bound` equals `error`; its inverse, not rounded.

    Parameters
    ----------
    dimension, noise, confidence, kind, factors, outputs
        As in :func:`error_bound`.
    error
        RMS excess prediction error, in the units of `noise`.

    Raises
    ------
    ValueError
        As :func:`error_bound`; where the error is so large that fewer samples than dimensions
        would do, neither the law nor the lower bound says how many.
    """
    unit = positive("noise", noise) * _unit(dimension, confidence, kind, factors)
    error = positive("error", error)
    samples = np.asarray((unit / error) ** 2)
    if kind == "upper":
        return samples
    fewest = positive("dimension", dimension) / size("outputs", outputs)
    if bool((samples < fewest * (1 - 1e-9)).any()):
        raise ValueError(
            f"error={float(error.max()):.4g}: at most {float((unit / np.sqrt(fewest)).min()):.4g} "
            f"is needed, that of n = dimension / outputs, where kind={kind!r} begins to hold."
        )
    return np.maximum(samples, fewest)


def _unit(dimension: Numbers, confidence: Numbers, kind: Kind, factors: int) -> NDArray[np.float64]:
    """Error at one sample and noise one."""
    d, level = positive("dimension", dimension), probability("confidence", confidence)
    size("factors", factors)
    if kind == "law":
        return np.asarray(np.sqrt(stats.chi2.ppf(level, d)))
    if kind == "upper":
        return isometry(d, n=1, noise=1, confidence=level, factors=factors)
    if kind == "lower":
        return np.asarray(np.sqrt(d))
    raise ValueError(f"kind={kind!r}: 'law', 'upper' or 'lower' is needed.")
