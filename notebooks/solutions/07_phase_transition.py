"""Solutions to the exercises of chapter 07; each function asserts what it claims."""

import torch

from krratio.experiments.identifiability import exact_sampled_rank, first_samples, twins
from krratio.experiments.recovery import attempt, channel_bottleneck, draw_trials
from krratio.experiments.success_rates import wilson


def exercise_1():
    """Three equations leave a line W* + t N; det is quadratic in t, one root is 0.

    det(W* + t N) = t · (⟨adj W*, N⟩ + t · det N), since det W* = 0. The other root is real.
    """
    data = draw_trials(channel_bottleneck(1, 1, L=2, P=2), (2, 2), samples=3, trials=50, seed=0)
    truth = data.weight[:, 0].reshape(-1, 2, 2)
    line = torch.linalg.svd(data.X)[2][:, 3].reshape(-1, 2, 2)  # the kernel of X
    adjugate = torch.stack([truth[:, 1, 1], -truth[:, 1, 0], -truth[:, 0, 1], truth[:, 0, 0]], 1)
    t = -(adjugate * line.flatten(1)).sum(1) / torch.linalg.det(line)
    other = truth + t[:, None, None] * line
    assert torch.allclose(torch.linalg.det(other), torch.zeros(50, dtype=torch.float64), atol=1e-9)
    seen = (data.X @ other.flatten(1)[..., None])[..., 0]
    assert torch.allclose(seen, data.y[..., 0], atol=1e-9)
    assert bool(((other - truth).flatten(1).norm(dim=1) > 1e-4).all())
    found = attempt(data, channel_bottleneck(1, 1, L=2, P=2), starts=6, seed=0)
    ends = found.weight[found.exact & ~found.recovered].reshape(-1, 2, 2)
    which = (found.exact & ~found.recovered).nonzero()[:, 1]
    assert len(which) > 10
    assert torch.allclose(ends, other[which], atol=1e-6)


def exercise_2():
    """No: trials differ in difficulty, so that successes cluster.

    With one p for all, the number of successes of S starts is binomial, and the ratio of variances
    is 1 up to a standard error of about sqrt(2 / trials). By Jensen's inequality the formula then
    promises too much; for four starts the difference is small.
    """
    network, trials, S = channel_bottleneck(2, 2), 120, 8
    data = draw_trials(network, (8, 7), samples=33, trials=trials, seed=2)
    found = attempt(data, network, starts=S, seed=2)
    p, successes = float(found.recovered.double().mean()), found.recovered.double().sum(0)
    ratio = float(successes.var() / (S * p * (1 - p)))
    assert ratio > 1 + 3 * (2 / trials) ** 0.5
    low, high = wilson(int(found.solved(4).sum()), trials)
    assert low - 0.05 < 1 - (1 - p) ** 4 < high + 0.05


def exercise_3():
    """36, 22, 15, 12 and 12: from T = 7 on, ceil(28 / 7) = 4, nothing is gained any more."""
    sizes = {"L": 16, "P": 4, "r": 2}
    needed = {T: first_samples(T=T, **sizes) for T in (1, 2, 4, 6, 7, 8, 100)}
    assert needed == {1: 36, 2: 22, 4: 15, 6: 13, 7: 12, 8: 12, 100: 12}
    for T in (7, 8, 20):
        network, d = channel_bottleneck(2, 2, L=16, P=4, T=T), 2 * (16 + 4 * T - 2)
        ranks = [exact_sampled_rank(network, (16, 4), samples=n, seed=0) for n in (11, 12)]
        assert ranks[0] < d == ranks[1]


def exercise_4():
    """Twelve: differences of rank at most 4 are all 4 × 3 matrices, since 3 is the largest rank.

    The formula 2R(L + P − 2R) holds for 2R ≤ min(L, P) only; at 2R = 4 and P = 3 it is that of
    rank 3, 3(4 + 3 − 3) = 12, which happens to be the same number. For 5 × 3 it would say 16, and
    there are 15 entries.
    """
    for n, share in ((11, 1.0), (12, 0.0)):
        gap, _ = twins(2, L=4, P=3, samples=n, trials=10, starts=3, seed=0)
        assert float((gap < 1e-6).double().mean()) == share
    assert 4 * (4 + 3 - 4) == 3 * (4 + 3 - 3) == 4 * 3
    assert 4 * (5 + 3 - 4) == 16 > 5 * 3
