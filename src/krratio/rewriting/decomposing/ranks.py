"""Ranks as they are asked for: numbers, a share of the energy, a share of the parameters."""

import math
import operator
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from krratio.rewriting.errors import DecomposeError

__all__ = ["Ranks", "Request", "along_ray", "cheapest", "coupled", "requested"]

Ranks = tuple[int, ...]

_ALLOWED = (
    "give an integer of at least 1, a tuple of them, 'energy:p' with 0 < p <= 1 such as "
    "'energy:0.95', or 'params:q' with 0 < q such as 'params:0.25'"
)


@dataclass(frozen=True)
class Request:
    """What ``rank=`` asks for.

    Attributes
    ----------
    kind
        ``"integer"`` and ``"tuple"`` hold ``ranks``, ``"energy"`` and ``"params"`` their ``share``.
    """

    kind: Literal["integer", "tuple", "energy", "params"]
    ranks: Ranks = ()
    share: float = math.nan


def requested(rank: object) -> Request:
    """Read ``rank=``.

    Raises
    ------
    DecomposeError
        It is none of the four.
    """
    if isinstance(rank, str):
        return _share(rank)
    if isinstance(rank, tuple | list):
        return Request("tuple", tuple(_whole(r, rank) for r in rank))
    return Request("integer", (_whole(rank, rank),))


def _whole(value: Any, rank: object) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise DecomposeError(f"rank={rank!r}: {_ALLOWED}.")
    return number


def _share(rank: str) -> Request:
    kind, _, number = rank.partition(":")
    try:
        share = float(number)
    except ValueError:
        share = math.nan
    if kind == "energy" and 0 < share <= 1:
        return Request("energy", share=share)
    if kind == "params" and 0 < share < math.inf:
        return Request("params", share=share)
    raise DecomposeError(f"rank={rank!r}: {_ALLOWED}.")


def coupled(ranks: Sequence[int], most: Ranks, coupling: int) -> Ranks:
    """The ranks, each cut to what is attainable beside the other.

    Parameters
    ----------
    ranks, most
        One or two ranks, and the largest of each.
    coupling
        Neither of two ranks can be more than this many times the other: the size of the modes that
        the factor between them has besides.
    """
    cut = [min(r, m) for r, m in zip(ranks, most, strict=True)]
    if len(cut) == 2:
        cut = [min(cut[0], cut[1] * coupling), min(cut[1], cut[0] * coupling)]
    return tuple(cut)


def along_ray(
    most: Ranks, coupling: int, count: Callable[[Ranks], int], budget: float
) -> Ranks | None:
    """Largest ranks in the proportion of ``most`` whose count is within a budget, or None.

    At t in (0, 1] they are the integer parts of t · ``most``, at least 1.
    """

    def at(t: tuple[int, int]) -> Ranks:
        return coupled([max(1, m * t[0] // t[1]) for m in most], most, coupling)

    steps = sorted({(i, m) for m in most for i in range(1, m + 1)}, key=lambda t: t[0] / t[1])
    found = bisect_right(steps, budget, key=lambda t: count(at(t)))
    return at(steps[found - 1]) if found else None


def cheapest(
    tails: Sequence[np.ndarray],
    most: Ranks,
    coupling: int,
    count: Callable[[Ranks], int],
    budget: float,
) -> Ranks:
    """The ranks of the smallest block for which what is left out sums to at most a budget.

    Parameters
    ----------
    tails
        Energy left out by each rank 0, 1, ... in each unfolding.
    budget
        For the sum; how it is split between two unfolding is what the smallest block decides.
    """
    if len(most) == 1:
        return (max(1, int(np.argmax(tails[0] <= budget))),)
    best: Ranks = most
    for r in range(1, most[0] + 1):
        if tails[0][r] > budget:
            continue
        least = int(np.argmax(tails[1] <= budget - tails[0][r]))
        pair = r, max(1, least, -(-r // coupling))
        if pair[1] <= min(most[1], r * coupling) and count(pair) < count(best):
            best = pair
    return best
