"""How many samples determine a function: ranks of sampled Jacobians, and pairs that look alike."""

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from krratio.experiments.network_fit import network_chart
from krratio.experiments.recovery import EXACT, Trials, attempt, channel_bottleneck
from krratio.experiments.seeds import stream, torch_stream
from krratio.networks.layers import Shape
from krratio.theory.modular.field import Field, draw_prime

__all__ = [
    "exact_sampled_rank",
    "first_samples",
    "predicted_rank",
    "sampled_ranks",
    "twins",
]

_GAP = 1e-9  # a relative singular value below this is zero
_LARGEST = 1000  # of the integer weights and inputs


def predicted_rank(n: int, *, L: int, P: int, T: int, r: int) -> int:
    """Rank of n generic samples, T outputs each, on L × (P·T) matrices of rank r.

    The fully connected weights are T problems of rP unknowns: T·min(n, rP). What samples beyond rP
    say about the kernels are min(T, rP) equations each for their r(L − r) coordinates.
    """
    beyond = max(0, n - r * P)
    return T * min(n, r * P) + min(r * (L - r), min(T, r * P) * beyond)


def first_samples(*, L: int, P: int, T: int, r: int) -> int:
    """The first n at which :func:`predicted_rank` is the dimension r(L + PT − r)."""
    return r * P + math.ceil(r * (L - r) / min(T, r * P))


def exact_sampled_rank(network: nn.Module, modes: Shape, *, samples: int, seed: int) -> int:
    """Rank modulo a random prime of ∂(outputs on n samples)/∂θ at random integers.

    It never exceeds the rank of generic samples at a generic θ, so that it proves a lower bound.

    Parameters
    ----------
    network
        Without divisions (no average pooling); its own weights are not used.
    modes
        (C, d_1, …, d_N).
    samples
        n.
    seed
        Draws prime, weights and inputs.

    Raises
    ------
    ValueError
        The Jacobian is not one of integers that float64 holds.
    """
    key = "sampled rank", samples, *modes
    draw = torch_stream(seed, *key)

    def integers(*shape: int) -> Tensor:
        return torch.randint(-_LARGEST, _LARGEST + 1, shape, generator=draw).double()

    theta = {name: integers(*p.shape) for name, p in network.named_parameters()}
    X = integers(samples, *modes)
    found = jacrev(lambda at: functional_call(network, at, (X,)).flatten())(theta)
    jacobian = torch.cat([part.flatten(1) for part in found.values()], 1).detach()
    if bool((jacobian != jacobian.round()).any()) or float(jacobian.abs().max()) >= 2.0**53:
        raise ValueError(
            "The Jacobian at integer weights is not one of integers below 2^53: use convolutions "
            "and linear layers only, at most about four."
        )
    field = Field(draw_prime(stream(seed, *key)))
    return field.rank(jacobian.long() % field.prime)


def sampled_ranks(trials: Trials, network: nn.Module, theta: Tensor) -> Tensor:
    """Numerical rank (m,) of X·J at weights (m, N) of the network, one point for each trial."""
    chart = network_chart(trials.draws(), network)[0]
    outputs, features = trials.weight.shape[1:]
    jacobian = chart.jacobian(theta).unflatten(1, (outputs, features))
    sampled = torch.einsum("mnd,mtdq->mntq", trials.X, jacobian).flatten(1, 2)
    values = torch.linalg.svdvals(sampled)
    ranks: Tensor = (values > _GAP * values[:, :1]).sum(1)
    return ranks


def twins(
    R: int, *, L: int, P: int, samples: int, trials: int, starts: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Look for two L × P matrices of rank R that n samples cannot tell apart.

    Their difference has rank at most 2R and zero outputs: a noiseless fit with one further random
    row, on which the output is to be 1. It is split by its singular value decomposition.

    Returns
    -------
    gap : Tensor
        (m,) ‖X(W₁ − W₂)‖ / (‖X‖ ‖W₁ − W₂‖), infinite where no such pair was found.
    pairs : Tensor
        (m, 2, L, P); NaN where none was found.
    """
    generator = torch_stream(seed, "twins", R, L, P, samples)
    X = torch.randn(trials, samples + 1, L * P, generator=generator, dtype=torch.float64)
    y = torch.zeros(trials, samples + 1, 1, dtype=torch.float64)
    y[:, -1] = 1
    nothing = torch.zeros(trials, 1, L * P, dtype=torch.float64)
    sought = Trials(X, y, nothing, nothing[:, 0, :0], (L, P))
    network = channel_bottleneck(2 * R, 2 * R, L=L, P=P)
    found = attempt(sought, network, starts=starts, seed=seed, until="exact")
    residual, best = found.residual.nan_to_num(math.inf).min(0)
    difference = found.weight[best, torch.arange(trials), 0].reshape(trials, L, P)
    left, sizes, right = torch.linalg.svd(difference, full_matrices=False)
    root = sizes[:, None].sqrt()
    left, right = left * root, (right.mT * root).mT
    pairs = torch.stack(
        [left[..., :R] @ right[:, :R], -left[..., R : 2 * R] @ right[:, R : 2 * R]], 1
    )
    design, apart = X[:, :-1], (pairs[:, 0] - pairs[:, 1]).flatten(1)
    seen = (design @ apart[..., None])[..., 0].norm(dim=1)
    gap = seen / design.flatten(1).norm(dim=1) / apart.norm(dim=1)
    missed = residual > EXACT
    pairs[missed] = torch.nan
    return torch.where(missed, math.inf, gap), pairs
