"""Solutions to the exercises of chapter 06; each function asserts what it claims."""

import numpy as np
import torch

import krratio as kr
from krratio.experiments.seeds import torch_stream


def normal(purpose, *shape):
    """Standard normal numbers of one purpose."""
    return torch.randn(shape, generator=torch_stream(1, "solutions", purpose), dtype=torch.float64)


def exercise_1():
    """The mean stays d: the law asks for the variance of the noise alone.

    What heavy tails change is which estimator is best: the Fisher information is larger.
    """
    L, P, rank, n = 6, 5, 2, 2000
    d = rank * (L + P - rank)
    truth = normal("left", L, rank) @ normal("right", rank, P)
    X = normal("design", n, L * P)
    gram = X.T @ X / n
    # t with 5 degrees of freedom: a normal over the root of a mean square of five; variance 5/3.
    heavy = normal("t", 400, n) / normal("chi", 400, n, 5).square().mean(-1).sqrt()
    noise = 0.1 * heavy / np.sqrt(5 / 3)
    outputs = X @ truth.reshape(-1) + noise  # (400, n)
    draws = kr.Draws.from_data(X, outputs[..., None], modes=(L,), positions=P)
    error = kr.fit(draws, "matrix", rank, starts=2, exchanges=0).weight[..., 0] - truth
    risks = ((error.flatten(1) @ gram) * error.flatten(1)).sum(1) * n / 0.01
    assert abs(float(risks.mean()) - d) < 4 * float(risks.std()) / 20
    return float(risks.mean())


def exercise_2():
    """X(Ŵ − W*) = Pε exactly for every n ≥ L P: chi-squared, not only in the limit."""
    size, n = 30, 40
    basis = torch.linalg.qr(normal("few", n, size))[0]
    squares = (normal("white", 4000, n) @ basis).square().sum(1)
    assert abs(float(squares.mean()) - size) < 4 * np.sqrt(2 * size / 4000)
    assert abs(float(squares.var()) / (2 * size) - 1) < 0.1
    return float(squares.mean()), float(squares.var())


def exercise_3():
    """At truth zero the estimate is the largest singular triple of the noise.

    n err²/σ² is its value squared, below (√L + √P)² and closer to it as L = P grows, while
    d = L + P − 1 is about half of that.
    """
    shares = []
    for side in (10, 20, 40):
        largest = torch.linalg.matrix_norm(normal(side, 300, side, side), ord=2).square().mean()
        shares.append(float(largest) / (4 * side))
    assert shares == sorted(shares)
    assert 0.8 < shares[0] < shares[-1] < 1
    return shares


def exercise_4():
    """The squares of the two bounds at one n decide: about eighty times as many."""
    c = kr.counts.cnn(l=(25,), K=4, P=16).covering  # differences have rank 4
    error = kr.error_bound(78, n=1000, noise=1.0, kind="law")
    needed = float(kr.sample_size(c, noise=1.0, error=error, kind="upper"))
    assert 50_000 < needed < 150_000
    return needed


if __name__ == "__main__":
    for exercise in (exercise_1, exercise_2, exercise_3, exercise_4):
        print(exercise.__name__, exercise())
