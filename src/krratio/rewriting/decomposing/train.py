"""Tensor trains of kernels along their spatial modes."""

import math

from jaxtyping import Float
from torch import Tensor

from krratio.experiments.decompositions import thin_svd

__all__ = ["train", "unfoldings"]


def _ordered(kernels: Float[Tensor, "g K C *l"]) -> Tensor:
    """Modes in the order of the train: (g, C, l_1, ..., l_N, K)."""
    return kernels.movedim(1, -1)


def unfoldings(kernels: Float[Tensor, "g K C *l"]) -> list[Tensor]:
    """The matrices that the bonds of the train separate: (g, C l_1...l_j, l_{j+1}...l_N K)."""
    modes, (C, *window) = _ordered(kernels), kernels.shape[2:]
    rows = [C * math.prod(window[: j + 1]) for j in range(len(window) - 1)]
    return [modes.reshape(len(kernels), m, -1) for m in rows]


def train(kernels: Float[Tensor, "g K C *l"], bonds: tuple[int, ...]) -> list[Tensor]:
    """Cores (g, r_{j-1}, l_j, r_j), r_0 = C and r_N = K, one for each spatial mode.

    Parameters
    ----------
    kernels
        float64, on the CPU.
    bonds
        r_1, ..., r_{N-1}.

    Notes
    -----
    TT-SVD (Oseledets 2011) with C and l_1 in the first mode and l_N and K in the last. For two
    spatial modes that is one singular value decomposition, so the best there is (Eckart-Young).
    """
    g, K, C, *window = kernels.shape
    rest, rank, cores = _ordered(kernels), C, []
    for size, bond in zip(window[:-1], bonds, strict=True):
        left, sizes, right = thin_svd(rest.reshape(g, rank * size, -1))
        cores.append(left[..., :bond].reshape(g, rank, size, bond))
        rest, rank = sizes[:, :bond, None] * right[:, :bond], bond
    return [*cores, rest.reshape(g, rank, window[-1], K)]
