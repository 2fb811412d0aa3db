"""Rank-one terms of a kernel: their sum, their norms, and the kernel's products with them."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Factors", "degeneracy", "energies", "gram", "products", "summed"]

Factors = list[Tensor]
"""(K, R), (C, R), (l, R): term r is the outer product of the three columns r."""


def summed(factors: Factors) -> Float[Tensor, "K C l"]:
    """The kernel that the terms add up to, by one product of matrices."""
    U, V, W = factors
    pairs = torch.einsum("cr,lr->clr", V, W)
    return (U @ pairs.flatten(0, 1).mT).reshape(len(U), len(V), len(W))


def gram(factors: Factors, without: int | None = None) -> Float[Tensor, "R R"]:
    """Inner products of the terms; of their parts in the other modes ``without`` one."""
    kept = [factor for mode, factor in enumerate(factors) if mode != without]
    return torch.stack([factor.mT @ factor for factor in kept]).prod(0)


def products(kernel: Float[Tensor, "K C l"], factors: Factors, mode: int) -> Float[Tensor, "m R"]:
    """The kernel contracted with the other two modes of each term.

    K is contracted first where it is, so that no more is ever held than (C, l, R), and the kernel
    is read in the order it lies in.
    """
    K, C, l = kernel.shape
    U, V, W = factors
    if mode == 0:
        return kernel.reshape(K, C * l) @ torch.einsum("cr,lr->clr", V, W).flatten(0, 1)
    inner = (kernel.reshape(K, C * l).mT @ U).reshape(C, l, -1)
    return (inner * W).sum(1) if mode == 1 else (inner * V[:, None]).sum(0)


def energies(factors: Factors) -> tuple[float, float]:
    """Sum of the squared norms of the terms, and squared norm of their sum."""
    inner = gram(factors)
    return float(inner.trace()), max(float(inner.sum()), 0.0)


def degeneracy(groups: list[Factors]) -> float:
    """Sum of the terms' squared norms over the squared norm of the sum, of all groups; 1 if zero.

    1 where the terms are orthogonal, large where they cancel.
    """
    terms, sums = (sum(part) for part in zip(*map(energies, groups), strict=True))
    if terms == 0:
        return 1.0
    return terms / sums if sums > 0 else math.inf
