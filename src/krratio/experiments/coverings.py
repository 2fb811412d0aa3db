"""Covering numbers of classes small enough to be covered greedily."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from krratio.experiments.seeds import stream
from krratio.theory import counts

__all__ = ["RADII", "covering_numbers", "greedy_cover", "growth_exponents"]

RADII = (0.5, 0.4, 0.32, 0.25)
"""Radii of the balls, on the unit sphere of the Frobenius norm."""

Class = tuple[tuple[int, int], int | None]
"""Shape (L, P) of rank-one matrices and the channels K they are written with, or None for all."""


def greedy_cover(points: Float[np.ndarray, "n m"], radius: float) -> int:
    """Number of centres of a greedy covering, up to a sign: 2-approximate in the radius.

    Parameters
    ----------
    points
        In order; the first that no ball holds is the next centre.
    radius
        Of the balls.
    """
    left, centres = points, 0
    while len(left):
        centre, centres = left[0], centres + 1
        left = left[((left - centre) ** 2).sum(1) > radius**2]
    return centres


def covering_numbers(
    classes: Mapping[str, Class], *, members: int, repeats: int, seed: int
) -> pd.DataFrame:
    """Centres of greedy coverings of random normalized members, for each of :data:`RADII`.

    A class with K channels of rank one is the sum of K kernels that are multiples of one kernel:
    K (1 + P) + L parameters for the matrices of rank one.

    Parameters
    ----------
    classes
        Name -> (shape, channels).
    members
        Random members per covering.
    repeats
        Independent coverings.
    seed
        Draws the members.

    Returns
    -------
    DataFrame
        ``class``, ``radius``, ``repeat``, ``centres``, ``intrinsic``, ``covering``, ``naive``.
    """
    rows = []
    for name, (shape, channels) in classes.items():
        found = _counts(shape, channels)
        for repeat in range(repeats):
            points = _members(shape, channels, members, stream(seed, "cover", name, repeat))
            rows += [
                {"class": name, "radius": radius, "repeat": repeat}
                | {"centres": greedy_cover(points, radius)}
                | found
                for radius in RADII
            ]
    return pd.DataFrame(rows)


def _counts(shape: tuple[int, int], channels: int | None) -> dict[str, int]:
    L, P = shape
    if channels is None:
        return {"intrinsic": L * P, "covering": L * P, "naive": L * P}
    found = counts.tucker(l=(L,), R_j=(None,), R=1, K=channels, P=P)
    return {"intrinsic": found.intrinsic, "covering": found.covering, "naive": found.naive}


def _members(
    shape: tuple[int, int], channels: int | None, count: int, generator: np.random.Generator
) -> Float[np.ndarray, "n m"]:
    L, P = shape
    if channels is None:
        points = generator.normal(size=(count, L * P))
    else:
        kernel = generator.normal(size=(count, L))
        expansion = generator.normal(size=(count, channels))
        weights = generator.normal(size=(count, channels, P))
        points = np.einsum("nl,nk,nkp->nlp", kernel, expansion, weights).reshape(count, -1)
    normalized: Float[np.ndarray, "n m"] = points / np.linalg.norm(points, axis=1, keepdims=True)
    return normalized


def growth_exponents(numbers: pd.DataFrame) -> pd.DataFrame:
    """Slope of log centres on log 1/radius per class, with a 95 % t-interval over the coverings.

    Parameters
    ----------
    numbers
        As :func:`covering_numbers` returns them.
    """
    rows = []
    for name, part in numbers.groupby("class", sort=False):
        slopes = [
            np.polyfit(-np.log(one["radius"]), np.log(one["centres"]), 1)[0]
            for _, one in part.groupby("repeat")
        ]
        mean, error = np.mean(slopes), stats.sem(slopes)
        half = stats.t.ppf(0.975, len(slopes) - 1) * error
        first = part.iloc[0]
        rows.append(
            {"class": name, "slope": mean, "low": mean - half, "high": mean + half}
            | {key: int(first[key]) for key in ("intrinsic", "covering", "naive")}
        )
    return pd.DataFrame(rows)
