"""Arithmetic modulo a prime of 61 bits, on int64 tensors, with float64 as the engine.

Neither NumPy nor torch multiplies modulo 61 bits. Two exact devices do: a product with a factor
below 2^31 has a quotient below 2^31, which float64 finds up to one; and a matrix product of limbs
of 21 bits is a sum of integers below 2^53, which float64 adds without rounding.
"""

from dataclasses import dataclass

import numpy as np
import torch
from flint import fmpz, nmod_mat
from jaxtyping import Int
from torch import Tensor

__all__ = ["Field", "draw_prime"]

_LIMB = 21
_HALF = 31
_TERMS = 2**9
"""Terms of an inner product per block: 3 * 2^9 * 2^42 < 2^53."""


def draw_prime(generator: np.random.Generator) -> int:
    """Draw a prime uniformly from those between 2^60 and 2^61.

    A fixed prime could divide every minor of one Jacobian; a random one does so with a probability
    that :class:`krratio.theory.modular.certificate.Certificate` bounds.
    """
    while True:
        candidate = int(generator.integers(2**60, 2**61))
        if fmpz(candidate).is_prime():
            return candidate


@dataclass(frozen=True)
class Field:
    """The integers modulo a prime; elements are int64 tensors with entries in [0, prime).

    Attributes
    ----------
    prime
        Between 2^60 and 2^61, so that sums of three elements fit into int64.
    """

    prime: int

    def random(self, generator: np.random.Generator, *shape: int) -> Int[Tensor, "..."]:
        """Draw uniformly distributed elements."""
        return torch.from_numpy(generator.integers(0, self.prime, size=shape, dtype=np.int64))

    def element(self, value: float) -> int:
        """Element that a floating-point number is: dyadic numbers have exact images.

        Raises
        ------
        ValueError
            If the value is NaN or infinite.
        """
        numerator, denominator = value.as_integer_ratio()
        return int(numerator * pow(denominator, -1, self.prime) % self.prime)

    def elements(self, values: Tensor) -> Int[Tensor, "..."]:
        """Exact images of a tensor of floating-point numbers."""
        images = [self.element(v) for v in values.detach().double().reshape(-1).tolist()]
        return torch.tensor(images, dtype=torch.int64).reshape(values.shape)

    def inverse(self, value: int) -> int:
        """Inverse of a nonzero element."""
        return pow(value, -1, self.prime)

    def inverses(self, values: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Inverses of nonzero elements, one by one."""
        images = [self.inverse(v) for v in values.reshape(-1).tolist()]
        return torch.tensor(images, dtype=torch.int64).reshape(values.shape)

    def add(self, a: Int[Tensor, "..."], b: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Sum, with broadcasting."""
        return self._below(a + b)

    def negative(self, a: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Additive inverse."""
        return torch.where(a == 0, a, self.prime - a)

    def multiply(self, a: Int[Tensor, "..."], b: Int[Tensor, "..."] | int) -> Int[Tensor, "..."]:
        """Product, with broadcasting; 31 bits of the second factor at a time."""
        b = torch.as_tensor(b)
        high = self._short(self._short(a, b >> _HALF), torch.tensor(1 << _HALF))
        return self.add(high, self._short(a, b & ((1 << _HALF) - 1)))

    def matmul(self, a: Int[Tensor, "... i k"], b: Int[Tensor, "... k j"]) -> Int[Tensor, "..."]:
        """Matrix product over the last two modes, with broadcasting of the others."""
        total: Tensor | None = None
        for start in range(0, a.shape[-1], _TERMS):
            block = self._block(a[..., start : start + _TERMS], b[..., start : start + _TERMS, :])
            total = block if total is None else self.add(total, block)
        if total is None:
            batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
            return torch.zeros(*batch, a.shape[-2], b.shape[-1], dtype=torch.int64)
        return total

    def sum(self, a: Int[Tensor, "..."], dim: int) -> Int[Tensor, "..."]:
        """Sum along one mode."""
        low, high = (a & ((1 << _HALF) - 1)).sum(dim), (a >> _HALF).sum(dim)
        return self.add(self._short(high % self.prime, torch.tensor(1 << _HALF)), low % self.prime)

    def rank(self, a: Int[Tensor, "i j"]) -> int:
        """Rank of a matrix."""
        return int(self._flint(a).rank()) if a.numel() else 0

    def reduced(self, a: Int[Tensor, "i j"]) -> tuple[Int[Tensor, "r j"], list[int]]:
        """Reduced row echelon form without its zero rows, and the columns of its pivots."""
        if not a.numel():
            return a[:0], []
        form, rank = self._flint(a).rref()
        rows = torch.tensor([int(v) for v in form.entries()], dtype=torch.int64)
        rows = rows.reshape(a.shape)[:rank]
        return rows, [int(row.nonzero()[0, 0]) for row in rows]

    def _flint(self, a: Tensor) -> nmod_mat:
        return nmod_mat(a.shape[0], a.shape[1], a.reshape(-1).tolist(), self.prime)

    def _below(self, a: Tensor) -> Tensor:
        """Bring entries in [-prime, 2 prime) into [0, prime)."""
        a = a + ((a >> 63) & self.prime)  # the sign bit, spread: no branch, one pass each
        a -= self.prime
        a += (a >> 63) & self.prime
        return a

    def _short(self, a: Tensor, b: Tensor) -> Tensor:
        """Product with a factor below 2^31; the int64 products wrap, their difference does not.

        The float64 quotient is below 2^32 and relatively exact to 2^-50, so its floor is off by at
        most one.
        """
        quotient = a.double().mul(b.double().mul_(1 / self.prime)).floor_().long()
        return self._below(torch.mul(a, b).sub_(quotient.mul_(self.prime)))

    def _block(self, a: Tensor, b: Tensor) -> Tensor:
        """Matrix product of at most 2^9 terms: nine products of limbs, then Horner's rule."""
        left, right = _limbs(a), _limbs(b)
        shift = torch.tensor(1 << _LIMB)
        total = torch.matmul(left[2], right[2]).long()
        for s in (3, 2, 1, 0):
            pairs = [(i, s - i) for i in range(3) if 0 <= s - i < 3]
            limb = torch.stack([torch.matmul(left[i], right[j]) for i, j in pairs]).sum(0)
            total = self.add(self._short(total, shift), limb.long())
        return total


def _limbs(a: Tensor) -> list[Tensor]:
    mask = (1 << _LIMB) - 1
    return [((a >> (_LIMB * i)) & mask).double() for i in range(3)]
