"""Singular values of a kernel's unfoldings, and what a rank leaves out."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from krratio.experiments.decompositions import thin_svd

__all__ = ["left_svd", "tails"]


def left_svd(matrices: Float[Tensor, "g m n"]) -> tuple[Float[Tensor, "g m k"], Tensor]:
    """Left singular vectors and singular values (g, k), k = min(m, n).

    A wide matrix is first made square by the triangular factor of its transpose, which is
    backward stable, as a Gram matrix is not, and needs no right vectors.
    """
    m, n = matrices.shape[1:]
    if n > m:
        matrices = torch.linalg.qr(matrices.mT, mode="r").R.mT
    left, sizes, _ = thin_svd(matrices)
    return left, sizes


def tails(sizes: Float[Tensor, "g k"], longest: int) -> np.ndarray:
    """Energy that rank r leaves out, for r = 0, ..., k, summed over groups: (k + 1,) float64.

    Parameters
    ----------
    sizes
        Singular values, descending.
    longest
        The longer side of the unfolding: values below ``longest`` machine precisions of the
        largest are zero.
    """
    energies = torch.where(sizes > longest * torch.finfo(sizes.dtype).eps * sizes.max(), sizes, 0.0)
    summed: np.ndarray = energies.square().sum(0).flip(0).cumsum(0).flip(0).numpy()
    return np.append(summed, 0.0)
