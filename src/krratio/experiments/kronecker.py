"""The truncated whitened solution: optimal where the Gram is a Kronecker product."""

import torch
from torch import Tensor

from krratio.experiments.reduced import Problem

__all__ = ["is_kronecker", "truncated"]

_SAME = 1e-12  # relative Frobenius distance


def is_kronecker(gram: Tensor) -> bool:
    """Whether G[l, m, p, q] = S[l, m] · T[p, q] to rounding.

    Parameters
    ----------
    gram : Tensor
        (L, L, P, P) symmetric in each pair. With P = 1 the answer is yes.
    """
    kernel = gram.diagonal(dim1=2, dim2=3).sum(-1)
    position = gram.diagonal(dim1=0, dim2=1).sum(-1)
    trace = kernel.diagonal().sum()
    product = torch.einsum("lm,pq->lmpq", kernel, position) / trace
    return bool((gram - product).norm() <= _SAME * gram.norm())


def truncated(problem: Problem, rank: int) -> tuple[Tensor, Tensor]:
    """The unconstrained W whitened along both modes, truncated, and turned back.

    The optimum of its rank if the Gram is a Kronecker product or P = 1, and a start elsewhere.

    Parameters
    ----------
    problem : Problem
        Draws on one design.
    rank : int
        R.

    Returns
    -------
    weight : Tensor
        (m, L, P, T).
    kernels : Tensor
        (m, L, R), a basis of its range.
    """
    _, P, T = problem.shape
    kernel, position = (problem.plain.diagonal(dim1=i, dim2=i + 1).mean(-1) for i in (2, 0))
    left, right = torch.linalg.cholesky(kernel), torch.linalg.cholesky(position)
    white = torch.einsum("ml,dmqt,qp->dlpt", left, problem.unconstrained(), right)
    basis = torch.linalg.svd(white.flatten(2), full_matrices=True)[0][..., :rank]
    low = (basis @ (basis.mT @ white.flatten(2))).unflatten(2, (P, T))
    back, across = torch.linalg.inv(left), torch.linalg.inv(right)
    weight = torch.einsum("lm,dlpt,pq->dmqt", back, low, across)
    return weight, back.mT @ basis
