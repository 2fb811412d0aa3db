"""Whether a Gram is a Kronecker product, so that least squares over a rank has a closed form."""

import torch
from torch import Tensor

__all__ = ["is_kronecker"]

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
