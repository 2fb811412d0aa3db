"""What an over-ranked model pays at a singular truth: the law of the tangent cone."""

import math

import pandas as pd
import torch
from torch import Tensor

from krratio.experiments.draws import Draws
from krratio.experiments.estimators import fit
from krratio.experiments.intervals import mean_interval
from krratio.experiments.seeds import torch_stream

__all__ = ["cone_dimension", "singular_truths"]


def cone_dimension(
    *, L: int, P: int, K: int, rank: int, seed: int, members: int = 20_000
) -> tuple[float, float]:
    """E‖Π_T g‖² for the tangent cone of rank ≤ K matrices at one of a given rank, and its error.

    The cone is the tangent space, of dimension rank·(L + P − rank), and in the orthogonal block of
    size (L − rank) × (P − rank) every matrix of rank at most K − rank. So the expectation is that
    dimension plus E Σ_{i ≤ K − rank} σ_i(G)², G Gaussian of that size.

    Parameters
    ----------
    L, P, K
        Size of W, and the rank of the model.
    rank
        Of the truth, at most K.
    seed
        Master seed.
    members
        Gaussian matrices that are drawn.

    Raises
    ------
    ValueError
        The rank is not between 0 and K, or K above L or P.
    """
    if not 0 <= rank <= K <= min(L, P):
        raise ValueError(f"rank={rank}, K={K}: 0 ≤ rank ≤ K ≤ min(L, P) = {min(L, P)} is needed.")
    if members < 2:
        raise ValueError(f"members={members}: at least 2 are needed for an error.")
    smooth = rank * (L + P - rank)
    if rank == K:
        return float(smooth), 0.0
    generator = torch_stream(seed, "cone", L, P, K, rank)
    G = torch.randn(members, L - rank, P - rank, generator=generator, dtype=torch.float64)
    top = torch.linalg.svdvals(G)[:, : K - rank].square().sum(1)
    return smooth + float(top.mean()), float(top.std()) / math.sqrt(members)


def singular_truths(
    *, L: int, P: int, K: int, replicates: int, noise: float, seed: int
) -> pd.DataFrame:
    """N · err² / σ² of rank-K fits at truths of rank K, K − 1, …, 0, on an isotropic design.

    Parameters
    ----------
    L, P, K
        Size of W, and the rank of the model.
    replicates
        Draws of the noise for each truth.
    noise
        σ / √n, small against the singular values of the truth, which are 1.
    seed
        Master seed.

    Returns
    -------
    DataFrame
        ``measured`` with its 95 % interval beside ``predicted`` (:func:`cone_dimension`).
    """
    rows = []
    for rank in range(K, -1, -1):
        truth = _orthogonal(L, rank, seed, "left") @ _orthogonal(P, rank, seed, "right").mT
        draws = Draws.gaussian(
            torch.eye(L * P, dtype=torch.float64),
            truth.reshape(L, P, 1),
            samples=1,
            noise=noise,
            draws=replicates,
            modes=(L,),
            generator=torch_stream(seed, "singular", rank),
        )
        fits = fit(draws, "matrix", K)
        risks = (fits.weight[..., 0] - truth).square().sum((1, 2)) / noise**2
        predicted, error = cone_dimension(L=L, P=P, K=K, rank=rank, seed=seed)
        rows.append(
            {
                "K": K,
                "rank": rank,
                **mean_interval("measured", risks),
                "predicted": predicted,
                "predicted_error": error,
            }
        )
    return pd.DataFrame(rows)


def _orthogonal(size: int, rank: int, seed: int, side: str) -> Tensor:
    drawn = torch.randn(size, rank, generator=torch_stream(seed, side), dtype=torch.float64)
    basis: Tensor = torch.linalg.qr(drawn)[0]
    return basis
