"""Upper bounds from coverings, with their constants.

Let D be the class of differences of two members: the same format with *doubled* ranks. A member of
norm one is a product of h factors, of which all but one are orthonormal and one has norm one (h = 3
for a matrix U S V, one more than the compressed modes for Tucker, the number of cores for a tensor
train). Nets of radius eta / h for these sets of factors make a net of radius eta of the unit sphere
of D, of members of norm one, at most (3 h / eta)^c of them, c the covering exponent of the doubled
ranks that :mod:`krratio.theory.counts` gives. What is left between a member and its neighbour in
the net telescopes into h members of D with norm at most eta / h each, since each term differs from
one of D in one factor only. So a supremum over D is at most its maximum over the net over 1 - eta.
CP terms can cancel, so that their factors have no such bound: cover CP as the Tucker format that
contains it.
"""

import numpy as np
from numpy.typing import NDArray

from krratio.theory.bounds.checks import Numbers, at_least, positive, probability
from krratio.theory.counts.values import size

__all__ = ["design_size", "fixed_design", "isometry", "operator_norm"]

_RADIUS = 1 / 16  # close to the radius that makes the constant smallest
_DESIGN_RADIUS, _DEVIATION = 0.125, 0.25


def isometry(
    exponent: Numbers,
    *,
    n: Numbers,
    noise: Numbers,
    confidence: Numbers = 0.95,
    factors: int = 3,
) -> NDArray[np.float64]:
    """RMS error that least squares exceeds with probability at most delta, Gram the identity.

    For matrices of bounded rank, Tucker tensors and tensor trains.

    Parameters
    ----------
    exponent
        Covering exponent c of the differences, i.e. at doubled ranks.
    n
        Samples.
    noise
        Standard deviation sigma (Gaussian, or a sub-Gaussian proxy).
    confidence
        1 - delta.
    factors
        h: 3 for matrices, 1 + number of factors for Tucker, number of cores for tensor trains.

    Raises
    ------
    ValueError
        A number is not positive or not finite, or the confidence is not between 0 and 1.

    Notes
    -----
    Optimality gives err <= 2 M, M the supremum over D of the normalized noise process. Take the net
    of radius 1/16, with (48 h)^c members; each correlation is N(0, sigma^2 / n), so with
    probability 1 - delta all are below sigma sqrt(2 (c log(48 h) + log 1/delta) / n), and
    M <= 16/15 of that:

        err <= 2 (16/15) sigma sqrt(2 (c log(48 h) + log 1/delta) / n).

    Derived; the nets are those of Candès and Plan (2011) and Rauhut, Schneider and Stojanac (2017).
    For matrices :func:`operator_norm` needs no net and is smaller.
    """
    c, n, noise = positive("exponent", exponent), positive("n", n), positive("noise", noise)
    delta = 1 - probability("confidence", confidence)
    log_net = np.log(3 * size("factors", factors) / _RADIUS)
    scale = 2 / (1 - _RADIUS)
    bound: NDArray[np.float64] = scale * noise * np.sqrt(2 * (c * log_net - np.log(delta)) / n)
    return bound


def operator_norm(
    *,
    L: int,
    P: int,
    K: int,
    n: Numbers,
    noise: Numbers,
    confidence: Numbers = 0.95,
) -> NDArray[np.float64]:
    """Bound on the same error, for matrices only and without a covering.

    Parameters
    ----------
    L, P, K
        The class is the L x P matrices of rank min(K, L, P) = r.
    n, noise, confidence
        As in :func:`isometry`, with Gaussian noise.

    Notes
    -----
    A difference has rank at most 2 r, so its correlation with the noise matrix N is at most
    sqrt(2 r) times the operator norm of N, and that exceeds sigma (sqrt(L) + sqrt(P) +
    sqrt(2 log 1/delta)) / sqrt(n) with probability at most delta (Davidson and Szarek 2001). Twice
    the product. What the covering argument loses is the quotient of the two bounds.
    """
    rank = min(size("K", K), size("L", L), size("P", P))
    doubled = min(2 * rank, L, P)
    n, noise = positive("n", n), positive("noise", noise)
    tail = np.sqrt(-2 * np.log(1 - probability("confidence", confidence)))
    bound: NDArray[np.float64] = (
        2 * noise * np.sqrt(doubled) * (np.sqrt(L) + np.sqrt(P) + tail) / np.sqrt(n)
    )
    return bound


def fixed_design(
    exponent: Numbers,
    *,
    n: Numbers,
    noise: Numbers,
    rank: Numbers,
    condition: Numbers = 1.0,
    base: float = 9.0,
    confidence: Numbers = 0.95,
) -> NDArray[np.float64]:
    """The same for any fixed design, at the price of a logarithm of its rank.

    Parameters
    ----------
    exponent, n, noise, confidence
        As in :func:`isometry`.
    rank
        Rank of the design, at most the ambient dimension; for T outputs T times that of X.
    condition
        Largest over smallest ratio of design norm to Frobenius norm, squared: at least 1. The
        smallest on D; the largest too where the rest telescopes (matrices, Tucker, tensor trains),
        and else on differences of members of D; the condition number of the Gram bounds both. It
        is finite only on W_X where patches overlap: on W the smallest is zero.
    base
        a of the covering, (a / eta)^c members for radius eta; 3 h for h factors.

    Raises
    ------
    ValueError
        A number is not positive or not finite, the condition is below 1, the base below 3, or the
        confidence is not between 0 and 1.

    Notes
    -----
    Net of radius eta = 1 / sqrt(rank) in the design norm, (a sqrt(condition) / eta)^c members of
    norm at most 1 + eta. The rest has norm at most eta, and the noise projected on the design has
    norm at most sigma (sqrt(rank) + sqrt(2 log 2/delta)) with probability 1 - delta/2. Derived.
    """
    c, n, noise = positive("exponent", exponent), positive("n", n), positive("noise", noise)
    rank = positive("rank", rank)
    kappa = np.sqrt(at_least("condition", condition, 1, "one"))
    tail = np.log(2 / (1 - probability("confidence", confidence)))
    eta = 1 / np.sqrt(rank)
    net = (1 + eta) * np.sqrt(
        2 * (c * np.log(at_least("base", base, 3, "one factor's") * kappa / eta) + tail)
    )
    rest = eta * (np.sqrt(rank) + np.sqrt(2 * tail))
    bound: NDArray[np.float64] = 2 * noise * (net + rest) / np.sqrt(n)
    return bound


def design_size(
    exponent: Numbers,
    *,
    confidence: Numbers = 0.95,
    spectral_ratio: Numbers = 1.0,
    factors: int = 3,
) -> NDArray[np.float64]:
    """Samples from which a Gaussian design keeps the length of differences within 0.57 and 1.43.

    Out of sample, errors are then at most 1 / 0.57 of those in the sample.

    Parameters
    ----------
    exponent
        Covering exponent of the differences.
    confidence
        1 - delta.
    spectral_ratio
        1 for independent rows. For stationary rows, largest over smallest spectral density
        (:func:`ar1_spectral_bounds`, :func:`var1_spectral_bounds`): the kept lengths are then
        relative to these two.
    factors
        h, as in :func:`isometry`.

    Raises
    ------
    ValueError
        A number is not positive or not finite, the ratio is below 1, or the confidence is not
        between 0 and 1.

    Notes
    -----
    Net of radius 1/8, (24 h)^c members. For each, the mean square over n samples is chi^2_n / n,
    and |root - 1| > 1/4 has probability at most 2 exp(-n / 32) (Laurent and Massart 2000). The
    supremum s obeys s <= 5/4 + s/8, so s <= 10/7 < 1.43, and the infimum is at least
    3/4 - s/8 > 0.57. So n >= 32 (c log(24 h) + log 2/delta). Derived, after Candès and Plan (2011).
    For stationary Gaussian rows the squares lie between chi^2 times the extreme spectral densities
    (Gray 2006); the net is then finer by the root of their ratio. Rows that are sub-Gaussian with
    constant k have n larger by a factor of order k^4 (Vershynin 2018, section 3.1).
    """
    c = positive("exponent", exponent)
    tail = np.log(2 / (1 - probability("confidence", confidence)))
    finer = np.sqrt(at_least("spectral_ratio", spectral_ratio, 1, "one"))
    log_net = np.log(3 * size("factors", factors) * finer / _DESIGN_RADIUS)
    bound: NDArray[np.float64] = 2 / _DEVIATION**2 * (c * log_net + tail)
    return bound
