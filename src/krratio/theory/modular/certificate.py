"""What an exact rank proves, and how unlikely it is to be too small."""

import math
from dataclasses import dataclass

from krratio.networks.graph import INPUT, Graph
from krratio.networks.layers import AveragePool, BatchNorm, Conv, Linear, Sum

__all__ = ["Certificate", "degree_and_bits"]

_PRIMES = 2**60 / (61 * math.log(2)) * 0.99
"""Fewer than the primes between 2^60 and 2^61 (prime number theorem; Dusart 2010 for the error)."""


@dataclass(frozen=True)
class Certificate:
    """Why a dimension holds.

    Attributes
    ----------
    prime
        Modulus, drawn at random from the primes between 2^60 and 2^61.
    rows, columns
        Size of the matrix whose rank was taken.
    degree
        Of an entry of that matrix as a polynomial in parameters, inputs and functionals.
    lower
        The rank modulo the prime. A rank modulo a prime at one point never exceeds the generic rank
        over the rationals: this bound is *proved*.
    upper
        Proved as well if ``generic``: from kernel fields that are known explicitly, or the size of
        the function.
    reasons
        How many of the parameters each kind of kernel field makes superfluous, in this order:
        ``"slack"`` (channel edges wider than what passes), ``"gauge"`` (mixing of channels undone
        by the next layer), ``"overlap"`` (relations between shifted windows), ``"offsets"``
        (constants that nothing pads, which are one number per output channel), ``"ambient"`` (what
        the size of the function leaves unused).
    generic
        The channel spans behind ``upper`` have the ranks that the shapes prescribe.
    failure_probability
        Bound on the probability, over the point and the prime, that ``lower`` is too small.
    """

    prime: int
    rows: int
    columns: int
    degree: int
    lower: int
    upper: int
    reasons: tuple[tuple[str, int], ...]
    generic: bool
    failure_probability: float

    @property
    def theorem(self) -> bool:
        """Whether the proved lower and upper bounds meet."""
        return self.generic and self.lower == self.upper

    @staticmethod
    def failure(rank: int, degree: int, bits: float, prime: int) -> float:
        """Probability bound that a nonzero minor of this size vanishes at the point or modulo p.

        Point (Schwartz 1980, Zippel 1979): degree of the minor / p. Prime: a nonzero integer below
        2^h has at most h / 60 prime factors above 2^60; the coefficients of the minor are sums of
        at most rank! products of rank entries below 2^bits.

        Parameters
        ----------
        rank
            Size of the minor.
        degree, bits
            Of an entry.
        prime
            The modulus.
        """
        height = (math.lgamma(rank + 1) / math.log(2)) + rank * bits
        return rank * degree / prime + height / 60 / _PRIMES


def degree_and_bits(graph: Graph) -> tuple[int, float]:
    """Degree and size in bits of the entries of the sketched Jacobian.

    The size is that of the network at all weights and inputs one, with every pooling multiplied by
    its divisors; a weighted sum counts its coefficients as integers (dyadic ones as their
    numerators and denominators).
    """
    degree: dict[int, int] = {INPUT: 1}
    bits: dict[int, float] = {INPUT: math.log2(math.prod(graph.input_shape) + 1)}
    for i, node in enumerate(graph.nodes):
        layer = node.layer
        entering = max(degree[s] for s in node.inputs)
        size = max(bits[s] for s in node.inputs) + math.log2(len(node.inputs))
        if isinstance(layer, Conv | Linear):
            entering, size = entering + 1, size + math.log2(layer.weight[0].numel() + 1)
        elif isinstance(layer, BatchNorm):
            entering, size = entering + 2, size + math.log2(3)
        elif isinstance(layer, AveragePool):
            size += sum(math.log2(d) for w in layer.modes for d in set(w.divisors))
            size += sum(math.log2(max(b - a for a, b in w.bounds)) for w in layer.modes)
        elif isinstance(layer, Sum):
            ratios = [c.as_integer_ratio() for c in map(float, layer.coefficients)]
            size += sum(math.log2(abs(n) + 1) + math.log2(d) for n, d in ratios)
        degree[i], bits[i] = entering, size
    outputs = math.log2(math.prod(graph.output_shape) + 1)
    return degree[graph.output], bits[graph.output] + outputs
