"""CP decomposition of kernels with merged spatial modes: alternating least squares, made stable."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from krratio.experiments.decompositions import thin_svd
from krratio.rewriting.decomposing.spectra import left_svd
from krratio.rewriting.decomposing.stable import stable
from krratio.rewriting.decomposing.terms import Factors, energies, gram, products, summed

__all__ = ["SLACK", "Terms", "canonical", "least_squares", "stabilized"]

SLACK = 0.01  # the stable terms may have this much more error than those of least squares

_RANDOM = 2  # starts beside that of the singular vectors
_FIRST, _LAST = 15, 100  # sweeps of every start, and more of the best
_SETTLED = 1e-7
_RIDGE = 1e-12  # keeps the normal equations regular where the kernel has a lower rank


@dataclass(frozen=True, eq=False)
class Terms:
    """A CP decomposition of one group's kernel.

    Attributes
    ----------
    factors
        (K, R), (C, R), (l, R) of the kernel over ``scale``.
    error
        Of the kernel over ``scale``: relative.
    scale
        Norm of the kernel.
    """

    factors: Factors
    error: float
    scale: float


def canonical(
    kernel: Float[Tensor, "K C l"], R: int, generator: Callable[[int], Generator]
) -> Terms:
    """Least squares over kernels of CP rank R.

    Parameters
    ----------
    kernel
        float64, on the CPU.
    R
        Number of terms.
    generator
        From the number of a random start to its generator.

    Notes
    -----
    Where a mode has size one the kernel is a matrix, and the answer its truncated SVD. Else
    alternating least squares from the singular vectors of the unfoldings
    and from two random starts; the one that is best after 15 sweeps gets 100 more.
    """
    scale = float(kernel.norm())
    if scale == 0:
        return Terms([kernel.new_zeros(size, R) for size in kernel.shape], 0.0, 0.0)
    unit = kernel / scale
    if 1 in kernel.shape:
        factors = _of_matrix(unit, R)
    else:
        starts = [_singular(unit, R, generator(0))]
        starts += [_random(unit, R, generator(i)) for i in range(1, _RANDOM + 1)]
        tried = [least_squares(unit, start, _FIRST) for start in starts]
        best = min(tried, key=lambda found: _error(unit, found))
        factors = least_squares(unit, best, _LAST)
    return Terms(factors, _error(unit, factors), scale)


def stabilized(kernel: Float[Tensor, "K C l"], terms: Terms, slack: float = SLACK) -> Factors:
    """Factors of the kernel itself with the least norms at (1 + slack) times the error."""
    if terms.scale == 0:
        return terms.factors
    limit = (1 + slack) * terms.error
    factors = stable(kernel / terms.scale, terms.factors, limit)
    even = terms.scale ** (1 / 3)
    return [factor * even for factor in factors]


def _error(kernel: Float[Tensor, "K C l"], factors: Factors) -> float:
    return float((kernel - summed(factors)).norm())


def least_squares(kernel: Float[Tensor, "K C l"], start: Factors, sweeps: int) -> Factors:
    """Alternating least squares, until the error of the unit kernel settles.

    The steps of tensorly's ``parafac`` with ``l2_reg``, in the contraction order of
    :func:`krratio.rewriting.decomposing.terms.products`.
    """
    factors, before, whole = list(start), math.inf, float(kernel.square().sum())
    ridge = _RIDGE * torch.eye(start[0].shape[1], dtype=kernel.dtype, device="cpu")
    for _ in range(sweeps):
        for mode in range(3):
            inner = products(kernel, factors, mode)
            factors[mode] = torch.linalg.solve(gram(factors, without=mode) + ridge, inner.mT).mT
        squared = whole - 2 * float((inner * factors[2]).sum()) + energies(factors)[1]
        error = math.sqrt(max(squared, 0.0))
        if abs(before - error) < _SETTLED:
            break
        before = error
    return factors


def _singular(kernel: Float[Tensor, "K C l"], R: int, generator: Generator) -> Factors:
    """Leading left singular vectors of each unfolding, random columns where they end."""
    factors = []
    for mode, random in enumerate(_random(kernel, R, generator)):
        left, _ = left_svd(kernel.movedim(mode, 0).flatten(1)[None])
        known = min(R, left.shape[2])
        factors.append(torch.cat([left[0, :, :known], random[:, known:]], 1))
    return factors


def _random(kernel: Float[Tensor, "K C l"], R: int, generator: Generator) -> Factors:
    """Gaussian columns of norm about one."""
    return [
        torch.randn(size, R, generator=generator, dtype=kernel.dtype, device="cpu")
        / math.sqrt(size)
        for size in kernel.shape
    ]


def _of_matrix(kernel: Float[Tensor, "K C l"], R: int) -> Factors:
    """The best terms of a kernel with a mode of size one; zeros where its rank ends."""
    single = kernel.shape.index(1)
    left, sizes, right = thin_svd(kernel.squeeze(single))
    width = min(R, len(sizes))
    factors = [kernel.new_zeros(size, R) for size in kernel.shape]
    row, column = (mode for mode in range(3) if mode != single)
    factors[single][:] = 1.0
    factors[row][:, :width] = left[:, :width] * sizes[:width]
    factors[column][:, :width] = right[:width].mT
    return factors
