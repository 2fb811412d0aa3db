"""Dependent data: what autoregression of covariates and of noise costs."""

import numpy as np
from numpy.typing import NDArray

from krratio.theory.bounds.checks import Numbers, probability

__all__ = ["ar1_spectral_bounds", "law_factor", "var1_spectral_bounds"]

_STEPS = 2**10  # first grid of frequencies
_FINEST = 2**20


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


def var1_spectral_bounds(
    transition: NDArray[np.float64], innovations: NDArray[np.float64], *, slack: float = 0.01
) -> tuple[float, float]:
    """Bounds on 2 pi times the eigenvalues of the spectral density of a stationary VAR(1) process.

    x_t = A x_(t-1) + e_t. The density is (I - A e^(-iw))^(-1) S (I - A e^(-iw))^(-*) / (2 pi), so
    its eigenvalues lie between the smallest eigenvalue of S over the largest singular value of
    I - A e^(-iw) squared, and the largest over the smallest (Basu and Michailidis 2015). The
    eigenvalues of the covariance of any stretch of the process lie between them too.

    Parameters
    ----------
    transition
        A (k, k), spectral radius below 1.
    innovations
        S (k, k), covariance of e_t, positive definite.
    slack
        Relative precision. Singular values change with w no faster than the norm of A, so that a
        grid, widened by what can happen between its points, bounds all frequencies.

    Returns
    -------
    tuple of float
        Lower and upper bound, neither further from the extremes of the two quotients than about
        2 slack.

    Raises
    ------
    ValueError
        A number is NaN or infinite, the slack is not between 0 and 1, the shapes differ, the
        process is not stationary, S is not symmetric and positive definite, or the process is so
        close to a unit root that a million frequencies do not resolve it.
    """
    A, S = (np.asarray(m, dtype=np.float64) for m in (transition, innovations))
    for name, matrix in (("transition", A), ("innovations", S)):
        if not np.isfinite(matrix).all():
            raise ValueError(f"{name} holds NaN or infinity; finite numbers are needed.")
    probability("slack", slack)
    if not A.size or A.ndim != 2 or A.shape[0] != A.shape[1] or A.shape != S.shape:
        raise ValueError(f"transition {A.shape} and innovations {S.shape}: equal squares needed.")
    radius = float(np.abs(np.linalg.eigvals(A)).max())
    if not radius < 1:
        raise ValueError(f"transition has spectral radius {radius:.4g}; below 1 is needed.")
    if np.abs(S - S.T).max() > 1e-9 * np.abs(S).max():
        raise ValueError("innovations are not symmetric; a covariance is.")
    spread = np.linalg.eigvalsh((S + S.T) / 2)
    if not spread[0] > 0:
        raise ValueError(f"innovations: smallest eigenvalue {spread[0]:.4g}; above 0 is needed.")
    steps = _STEPS
    while steps <= _FINEST:
        turns = np.exp(-1j * np.pi * np.arange(steps + 1) / steps)  # the rest are conjugates
        sizes = np.linalg.svd(np.eye(len(A)) - turns[:, None, None] * A, compute_uv=False)
        between = float(np.linalg.norm(A, 2)) * np.pi / steps / 2
        if between <= slack * sizes.min():
            smallest, largest = sizes.min() - between, sizes.max() + between
            return float(spread[0] / largest**2), float(spread[-1] / smallest**2)
        steps *= 4
    raise ValueError(f"transition has spectral radius {radius:.6g}, too close to a unit root.")


def law_factor(*, covariates: Numbers, noise: Numbers) -> NDArray[np.float64]:
    """Factor on the law d sigma^2 / n when covariates and noise are AR(1), independent of another.

    (1 + rho_x rho_e) / (1 - rho_x rho_e): the sum over lags of the product of autocorrelations, for
    covariates of mean zero that share rho_x, and for errors in the sample. If either is white it is
    one. A constant regressor, such as an intercept, has the factor (1 + rho_e) / (1 - rho_e).

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
