"""Solutions to the exercises of chapter 06."""

# %% Exercise 1
import numpy as np
import torch

import krratio as kr
from krratio.experiments.seeds import stream, torch_stream

L, P, rank, n = 6, 5, 2, 2000
size, d = L * P, rank * (L + P - rank)
generator = stream(1, "solutions", "heavy tails")
truth = torch.from_numpy(
    generator.standard_normal((L, rank)) @ generator.standard_normal((rank, P))
)
X = torch.from_numpy(generator.standard_normal((n, size)))
gram = X.T @ X / n


def risks(noise):
    """n err² / σ² of rank-2 fits for noise (m, n) of variance 0.01."""
    cross = gram @ truth.reshape(-1) + noise @ X / n
    total = torch.ones(len(noise), 1, dtype=torch.float64)
    draws = kr.Draws(gram, cross[..., None], total, (L,), P)
    error = kr.fit(draws, "matrix", rank, starts=2, exchanges=0).weight[..., 0] - truth
    flat = error.flatten(1)
    return ((flat @ gram) * flat).sum(1) * n / 0.01


# t with 5 degrees of freedom has variance 5/3. The law asks for the variance of the noise alone:
# the mean is d for both, and what changes is which estimator is best.
heavy = 0.1 * torch.from_numpy(generator.standard_t(5, (400, n))) / np.sqrt(5 / 3)
found = risks(heavy)
error = float(found.std()) / 20
assert abs(float(found.mean()) - d) < 4 * error
print("t5: n err²/σ² is", round(float(found.mean()), 1), "for d =", d)

# %% Exercise 2
# The class of all matrices is linear: X(Ŵ − W*) = Pε exactly, for every n ≥ L P, so n err²/σ² is
# chi-squared with L P degrees of freedom, not only in the limit.
few = 40
X = torch.from_numpy(generator.standard_normal((few, size)))
basis = torch.linalg.qr(X)[0]
noise = torch.from_numpy(generator.standard_normal((4000, few)))
squares = (noise @ basis).square().sum(1)
assert abs(float(squares.mean()) - size) < 4 * np.sqrt(2 * size / 4000)
assert abs(float(squares.var()) / (2 * size) - 1) < 0.1
print("full class: mean", round(float(squares.mean())), "variance", round(float(squares.var())))

# %% Exercise 3
# At truth zero and K = 1 the estimate is the largest singular triple of the noise, so n err²/σ² is
# its largest singular value squared, about (√L + √P)² from below, where d is only L + P − 1.
shares = []
for side in (10, 20, 40):
    noise = torch.randn(
        300, side, side, generator=torch_stream(1, "solutions", side), dtype=torch.float64
    )
    largest = torch.linalg.matrix_norm(noise, ord=2).square().mean()
    shares.append(float(largest) / (4 * side))
assert shares == sorted(shares)
assert 0.8 < shares[0] < shares[-1] < 1
print("share of (√L + √P)²:", [round(share, 2) for share in shares], "and d is half of it")

# %% Exercise 4
# Squares of errors decide: the quotient of the two units at n = 1.
c = kr.counts.cnn(l=(25,), K=4, P=16).covering
error_at = kr.error_bound(78, n=1000, noise=1.0, kind="law")
needed = float(kr.sample_size(c, noise=1.0, error=error_at, kind="upper"))
assert 50_000 < needed < 150_000
print("the covering bound asks for", round(needed, -3), "samples where the law asks for 1,000")
