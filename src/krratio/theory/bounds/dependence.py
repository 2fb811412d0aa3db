"""Dependent data: what autoregression of covariates and of noise costs."""

import numpy as np
from numpy.typing import NDArray

from krratio.theory.bounds.checks import Numbers

__all__ = ["ar1_spectral_bounds", "law_factor"]


def ar1_spectral_bounds(rho: float) -> tuple[float, float]:
    """Extremes of 2 pi times the spectral density of an AR(1) process of variance one.

    (1 - |rho|) / (1 + |rho|) and its inverse; the eigenvalues of the covariance of any stretch of
    the process lie between (Gray 2006).

    Raises
    ------
    ValueError
        If the coefficient is not strictly between -1 and 1.
    """
    r = abs(float(_coefficient("rho", rho)))
    return (1 - r) / (1 + r), (1 + r) / (1 - r)


def law_factor(*, covariates: Numbers, noise: Numbers) -> NDArray[np.float64]:
    """Factor on the law d sigma^2 / n when covariates and noise are AR(1), independent of another.

    (1 + rho_x rho_e) / (1 - rho_x rho_e): the sum over lags of the product of autocorrelations. If
    either is white it is one. (1 + rho) / (1 - rho) holds for a constant regressor only.

    Parameters
    ----------
    covariates, noise
        The coefficients rho_x and rho_e.
    """
    product = _coefficient("covariates", covariates) * _coefficient("noise", noise)
    factor: NDArray[np.float64] = (1 + product) / (1 - product)
    return factor


def _coefficient(name: str, value: Numbers) -> NDArray[np.float64]:
    array = np.asarray(value, dtype=np.float64)
    bad = array[~(np.abs(array) < 1)]
    if bad.size:
        raise ValueError(f"{name}={float(bad.flat[0])}: coefficients between -1 and 1 are needed.")
    return array
