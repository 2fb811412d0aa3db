"""Tucker decomposition of kernels over their channels; the window stays whole."""

import tensorly
import torch
from jaxtyping import Float
from tensorly.decomposition import partial_tucker
from torch import Tensor

from krratio.rewriting.decomposing.spectra import left_svd

__all__ = ["Bases", "bases", "tucker"]

_SWEEPS = 50
_SETTLED = 1e-6  # change of the relative error at which the sweeps end

Bases = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def bases(kernels: Float[Tensor, "g K C l"]) -> Bases:
    """Left singular vectors and values of both channel unfoldings: the HOSVD, at every rank.

    Returns
    -------
    tuple
        ((g, K, k), (g, k)) of the K × Cl unfoldings, ((g, C, c), (g, c)) of the C × Kl ones.
    """
    return left_svd(kernels.flatten(2)), left_svd(kernels.transpose(1, 2).flatten(2))


def tucker(
    kernels: Float[Tensor, "g K C l"], ranks: tuple[int, int], start: Bases
) -> tuple[Float[Tensor, "g K S"], Float[Tensor, "g S R l"], Float[Tensor, "g C R"]]:
    """Orthonormal bases of the channels and the core between them, for each group.

    Parameters
    ----------
    kernels
        float64, on the CPU.
    ranks
        (R, S): channels behind the C that enter, and before the K that leave.
    start
        From :func:`bases`.

    Returns
    -------
    tuple of Tensor
        U (g, K, S), core (g, S, R, l), V (g, C, R).

    Notes
    -----
    The truncated HOSVD, whose squared error is at most the sum of what both unfoldings leave out,
    then higher-order orthogonal iteration (De Lathauwer, De Moor & Vandewalle 2000), which never
    makes the error larger.
    """
    R, S = ranks
    (left, _), (right, _) = start
    found = [
        _iterated(kernel, U[:, :S], V[:, :R])
        for kernel, U, V in zip(kernels, left, right, strict=True)
    ]
    return tuple(torch.stack(part) for part in zip(*found, strict=True))  # type: ignore[return-value]


def _iterated(
    kernel: Float[Tensor, "K C l"], U: Float[Tensor, "K S"], V: Float[Tensor, "C R"]
) -> tuple[Tensor, Tensor, Tensor]:
    core = torch.einsum("kcl,ks,cr->srl", kernel, U, V)
    if not kernel.any():
        return U, core, V
    try:
        with tensorly.backend_context("pytorch", local_threadsafe=True):
            (core, (U, V)), _ = partial_tucker(
                kernel,
                rank=(U.shape[1], V.shape[1]),
                modes=[0, 1],
                n_iter_max=_SWEEPS,
                init=(core, [U, V]),
                tol=_SETTLED,
            )
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # exported at run time only
        pass  # LAPACK gave up on a rank-deficient unfolding: the HOSVD stands, with its guarantee
    return U, core, V
