"""Success rates of many trials: intervals, paired differences, and where they cross one half."""

import math

import numpy as np
import pandas as pd
from scipy import special, stats

from krratio.experiments.seeds import stream

__all__ = ["crossing", "paired_difference", "wilson"]

_NEWTON = 25  # steps, quadratic from the fourth or so on


def wilson(successes: int, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's (1927) interval of a success rate.

    Raises
    ------
    ValueError
        There are no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials: give 0 to m of m ≥ 1.")
    z = float(stats.norm.ppf((1 + level) / 2))
    share, weight = successes / trials, z**2 / trials
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / 4 / trials)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def paired_difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Success rate of ``second`` less that of ``first``, tried on the same m trials.

    Parameters
    ----------
    first, second
        (m,) whether each trial was solved.

    Returns
    -------
    tuple of float
        The difference with its 95 % interval of Agresti and Min (2005): half a trial is added to
        each of the four cells, so that it does not vanish where nobody differs.
    """
    gained, lost = int((second & ~first).sum()) + 0.5, int((first & ~second).sum()) + 0.5
    total = len(first) + 2
    centre = (gained - lost) / total
    half = 1.96 * math.sqrt(gained + lost - (gained - lost) ** 2 / total) / total
    return float(second.mean() - first.mean()), centre - half, centre + half


def crossing(x: np.ndarray, solved: np.ndarray, *, resamples: int, seed: int) -> pd.DataFrame:
    """Where logistic curves through success rates cross 1/2, for classes tried on the same trials.

    Parameters
    ----------
    x
        (g,) places, such as n/d.
    solved
        (classes, g, m) whether a trial at a place was solved with a class.
    resamples
        Bootstrap draws, over the trials of each place, together for all classes.
    seed
        Draws them.

    Returns
    -------
    DataFrame
        ``half`` with a 95 % interval for each class, and ``difference`` to the first class with its
        own.
    """
    generator, (places, trials) = stream(seed, "crossing"), solved.shape[1:]
    counts = generator.multinomial(trials, np.full(trials, 1 / trials), (resamples, places))
    drawn = np.einsum("bgm,cgm->bcg", counts, solved)
    half = _half(x, np.concatenate([solved.sum(2)[None], drawn]), trials)  # (1 + b, classes)
    apart = half - half[:, :1]
    frame = {"half": half[0], "difference": apart[0]}
    for name, values in (("half", half), ("difference", apart)):
        low, high = np.quantile(values[1:], [0.025, 0.975], axis=0)
        frame |= {f"{name}_low": low, f"{name}_high": high}
    return pd.DataFrame(frame)


def _half(x: np.ndarray, successes: np.ndarray, trials: int) -> np.ndarray:
    """Where the logistic curves of highest likelihood through (…, g) successes cross 1/2.

    Half a success and half a failure are added at each place, so that the slope is finite.
    """
    rate = (successes + 0.5) / (trials + 1)
    design = np.stack([np.ones_like(x), (x - x.mean()) / x.std()], 1)
    at = np.zeros((*rate.shape[:-1], 2))
    for _ in range(_NEWTON):
        fitted = special.expit(at @ design.T)
        slope = (rate - fitted) @ design
        curvature = np.einsum("...g,gi,gj->...ij", fitted * (1 - fitted), design, design)
        at = at + np.linalg.solve(curvature, slope[..., None])[..., 0]
    crossed: np.ndarray = x.mean() - x.std() * at[..., 0] / at[..., 1]
    return crossed
