"""Lower bounds, measured errors and upper bounds on one axis, for matrices of bounded rank."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from krratio.experiments.draws import Draws
from krratio.experiments.estimators import fit
from krratio.experiments.seeds import torch_stream
from krratio.theory import bounds, counts

__all__ = ["KINDS", "bounds_against_samples", "coverage"]

KINDS: dict[str, str] = {
    "frozen": "lower: one factor frozen",
    "minimax": "lower: local minimax",
    "rmse": "measured RMS error",
    "quantile": "measured 95 % quantile",
    "operator": "upper: operator norm",
    "fixed": "upper: any fixed design",
    "isometry": "upper: covering",
}
"""What is compared, smallest first where the theory orders it."""


def _truths(L: int, P: int, K: int, seed: int) -> dict[str, Tensor]:
    """Members of the class: smooth with equal and with decaying singular values, and singular."""
    draw = torch_stream(seed, "bound truths", L, P, K)
    left, right = (
        torch.linalg.qr(torch.randn(n, K, generator=draw, dtype=torch.float64))[0] for n in (L, P)
    )
    sizes = {
        "equal": torch.ones(K),
        "decaying": 3.0 ** -torch.arange(K),
        "rank 1": (torch.arange(K) == 0).to(torch.float64),
        "zero": torch.zeros(K),
    }
    return {name: (left * s.to(torch.float64)) @ right.mT for name, s in sizes.items()}


def _errors(
    truth: Tensor, K: int, *, samples: int, noise: float, replicates: int, seed: int
) -> Tensor:
    """RMS errors (m,) of rank-K fits on an orthonormal design of n rows."""
    L, P = truth.shape
    draws = Draws.gaussian(
        torch.eye(L * P, dtype=torch.float64),
        truth.reshape(L, P, 1),
        samples=samples,
        noise=noise,
        draws=replicates,
        modes=(L,),
        generator=torch_stream(seed, "bounds", K, samples),
    )
    error: Tensor = (fit(draws, "matrix", K).weight[..., 0] - truth).flatten(1).norm(dim=1)
    return error


def _upper(
    L: int, P: int, K: int, *, samples: int, noise: float, confidence: float
) -> dict[str, float]:
    """Every upper bound of the class, at doubled ranks where a covering is used."""
    doubled = counts.cnn(l=(L,), K=min(2 * K, L, P), P=P).covering
    found: dict[str, Callable[..., Any]] = {
        "operator": partial(bounds.operator_norm, L=L, P=P, K=K),
        "fixed": partial(bounds.fixed_design, doubled, rank=L * P),
        "isometry": partial(bounds.isometry, doubled),
    }
    return {k: float(f(n=samples, noise=noise, confidence=confidence)) for k, f in found.items()}


def bounds_against_samples(
    *,
    L: int,
    P: int,
    K: int,
    samples: Sequence[int],
    noise: float,
    confidence: float,
    replicates: int,
    seed: int,
) -> pd.DataFrame:
    """Bounds on the RMS error, and the error measured at a smooth truth, against n.

    Parameters
    ----------
    L, P, K
        The class: L × P matrices of rank at most K.
    samples
        n, each at least L·P: the design has orthogonal columns.
    noise, confidence
        σ and 1 − δ.
    replicates
        Draws of the noise for each n.
    seed
        Master seed.

    Returns
    -------
    DataFrame
        Columns ``n``, ``kind`` (of :data:`KINDS`), ``error``, and ``looseness``: the error over the
        measured quantity that the bound is about (RMS for lower bounds, quantile for upper ones).
    """
    truth = _truths(L, P, K, seed)["equal"]
    d = counts.cnn(l=(L,), K=K, P=P).intrinsic
    frozen = bounds.frozen_matrix(L=L, K=K, P=P)
    rows = []
    for n in samples:
        errors = _errors(truth, K, samples=n, noise=noise, replicates=replicates, seed=seed)
        rms, quantile = float(errors.square().mean().sqrt()), float(errors.quantile(confidence))
        found = {
            "frozen": float(bounds.error_bound(frozen, n=n, noise=noise, kind="lower")),
            "minimax": float(bounds.error_bound(d, n=n, noise=noise, kind="lower")),
            "rmse": rms,
            "quantile": quantile,
        } | _upper(L, P, K, samples=n, noise=noise, confidence=confidence)
        for kind, error in found.items():
            base = quantile if kind in ("quantile", "operator", "fixed", "isometry") else rms
            rows.append({"n": n, "kind": kind, "error": error, "looseness": error / base})
    return pd.DataFrame(rows)


def coverage(
    *,
    L: int,
    P: int,
    ranks: Sequence[int],
    samples: int,
    noise: float,
    confidence: float,
    replicates: int,
    seed: int,
) -> pd.DataFrame:
    """Share of runs with an error below each bound, at smooth and at singular truths.

    Parameters
    ----------
    L, P, ranks
        The classes.
    samples, noise, confidence, replicates, seed
        As for :func:`bounds_against_samples`.

    Returns
    -------
    DataFrame
        Columns ``K``, ``truth``, ``mean_square`` (n · err² / σ²), then the share for ``law``,
        ``operator``, ``fixed`` and ``isometry``. Upper bounds must cover everywhere, the law at
        smooth truths only.
    """
    rows = []
    for K in ranks:
        d = counts.cnn(l=(L,), K=K, P=P).intrinsic
        upper = _upper(L, P, K, samples=samples, noise=noise, confidence=confidence)
        law = bounds.error_bound(d, n=samples, noise=noise, confidence=confidence, kind="law")
        for name, truth in _truths(L, P, K, seed).items():
            errors = _errors(
                truth, K, samples=samples, noise=noise, replicates=replicates, seed=seed
            )
            mean_square = float(errors.square().mean()) * samples / noise**2
            row: dict[str, object] = {"K": K, "truth": name, "mean_square": mean_square}
            for kind, bound in {"law": float(law), **upper}.items():
                row[kind] = float((errors <= bound).double().mean())
            rows.append(row)
    return pd.DataFrame(rows)
