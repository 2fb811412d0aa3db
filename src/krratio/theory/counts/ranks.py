"""Effective ranks: what a format can attain, whatever ranks were asked for."""

import math

__all__ = ["tt_ranks", "tucker_ranks"]


def tucker_ranks(modes: tuple[int, ...], ranks: tuple[int, ...]) -> tuple[int, ...]:
    """Multilinear ranks that a generic tensor with a core of the given ranks has.

    Each is at most the size of its mode and the product of the others (De Lathauwer, De Moor and
    Vandewalle 2000); lowering one lowers that product for the rest, so this is a fixed point.

    Parameters
    ----------
    modes, ranks
        Sizes of the tensor and of its core.
    """
    found = [min(n, r) for n, r in zip(modes, ranks, strict=True)]
    while True:
        products = [math.prod(found[:j] + found[j + 1 :]) for j in range(len(found))]
        lower = [min(r, p) for r, p in zip(found, products, strict=True)]
        if lower == found:
            return tuple(found)
        found = lower


def tt_ranks(modes: tuple[int, ...], ranks: tuple[int, ...]) -> tuple[int, ...]:
    """Bonds that a generic tensor train of the given bonds has.

    A bond is at most its left neighbour times the mode between, and the same from the right
    (Holtz, Rohwedder and Schneider 2012).

    Parameters
    ----------
    modes
        (n_1, ..., n_h+1).
    ranks
        (r_1, ..., r_h), the bonds between them.
    """
    bonds = [1, *ranks, 1]
    for i in range(1, len(bonds) - 1):
        bonds[i] = min(bonds[i], bonds[i - 1] * modes[i - 1])
    for i in range(len(bonds) - 2, 0, -1):
        bonds[i] = min(bonds[i], bonds[i + 1] * modes[i])
    return tuple(bonds[1:-1])
