"""Many draws of the noise fitted at once: what they are, and that together is as alone."""

import dataclasses
import math

import numpy as np
import pytest
import torch

import krratio as kr
from krratio.errors import NonFiniteError, ShapeError
from krratio.experiments.draws import Draws, factor
from krratio.experiments.kronecker import is_kronecker
from krratio.experiments.seeds import torch_stream

L, P = 6, 4


def normal(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def some_draws(draws=5, noise=0.5, outputs=2):
    root = normal(0, 3 * L * P, L * P)
    truth = (normal(1, L, 2) @ normal(2, 2, P * outputs)).reshape(L, P, outputs)
    return kr.Draws.gaussian(
        root.T @ root / len(root),
        truth,
        samples=100,
        noise=noise,
        draws=draws,
        modes=(2, 3),
        generator=torch_stream(3, "draws"),
    )


def test_a_draw_of_the_noise_has_the_moments_of_its_definition():
    draws, n, noise = some_draws(draws=4000, outputs=1), 100, 0.5
    mean = draws.cross.mean(0)
    noises = (draws.cross - mean)[..., 0]
    covariance = noises.T @ noises / len(draws)
    expected = noise**2 * draws.gram / n
    assert float((covariance - expected).norm() / expected.norm()) < 0.1
    truth = torch.linalg.solve(draws.gram, mean)
    exact = (normal(1, L, 2) @ normal(2, 2, P)).reshape(-1, 1)
    assert float((truth - exact).abs().max()) < 0.02


def test_the_factor_of_a_singular_gram_multiplies_back():
    root = normal(0, 3, 7)
    found = factor(root.T @ root)
    assert len(found) == 3
    torch.testing.assert_close(found.T @ found, root.T @ root)


@pytest.mark.parametrize(
    ("kind", "ranks"), [("matrix", 2), ("tucker", (2, 2, 2)), ("cp", 2), ("tt", (2, 2))]
)
def test_draws_fitted_together_are_those_fitted_alone(kind, ranks):
    draws = some_draws()
    options = {"starts": 3, "exchanges": 1}
    together = kr.fit(draws, kind, ranks, **options)
    assert len(together) == 5
    assert together.weight.shape == (5, L, P, 2)
    for i in range(5):
        alone = kr.fit(draws[i : i + 1], kind, ranks, **options)
        assert float(alone.loss[0]) == pytest.approx(float(together.loss[i]), rel=1e-9)
        torch.testing.assert_close(alone.weight[0], together.weight[i], rtol=1e-6, atol=1e-8)
    # The truth is no CP tensor, and its best CP approximations need not exist.
    assert bool((together.converged | together.diverged).all())
    assert bool((together.gradient_norm[together.converged] <= 1e-10).all())
    assert kind == "cp" or not bool(together.diverged.any())


def test_one_data_set_is_one_draw():
    Z, Y = normal(4, 90, 2, 3, P), normal(5, 90, 2)
    statistics = kr.Statistics.from_batches([(Z, Y)])
    single = kr.fit(statistics, "tucker", (2, 2, 2), starts=2, exchanges=0)
    many = kr.fit(kr.Draws.of(statistics), "tucker", (2, 2, 2), starts=2, exchanges=0)
    assert single.loss == float(many.loss[0])
    assert single.losses == tuple(many.losses[0].tolist())
    assert torch.equal(single.weight, many.weight[0])


def test_draws_with_a_design_each_are_fitted_each_on_its_own():
    parts = [
        kr.Statistics.from_batches([(normal(i, 80, 2, 3, P), normal(i + 9, 80, 2))])
        for i in range(3)
    ]
    stacked = kr.Draws.stack(parts)
    assert stacked.gram.shape == (3, L * P, L * P)
    fits = kr.fit(stacked, "matrix", 2, starts=2, exchanges=0)
    for i, part in enumerate(parts):
        alone = kr.fit(part, "matrix", 2, starts=2, exchanges=0)
        assert alone.loss == pytest.approx(float(fits.loss[i]), rel=1e-10)


def test_a_tensor_train_is_recovered_and_nests_between_cp_and_matrix():
    first, second, last = normal(1, 2, 2), normal(2, 2, 3, 3), normal(3, 3, P)
    truth = torch.einsum("ca,alr,rp->clp", first, second, last).reshape(L, P, 1)
    gram = torch.eye(L * P, dtype=torch.float64)
    options = {"modes": (2, 3), "draws": 2, "generator": torch_stream(1, "tt")}
    exact = kr.Draws.gaussian(gram, truth, samples=1, noise=0.0, **options)
    found = kr.fit(exact, "tt", (2, 3), starts=3, exchanges=0)
    torch.testing.assert_close(found.weight[0], truth, rtol=1e-6, atol=1e-7)
    noisy = kr.Draws.gaussian(gram, truth, samples=1, noise=1.0, **options)
    losses = [
        kr.fit(noisy, kind, ranks, starts=6, exchanges=2).loss
        for kind, ranks in (("cp", 2), ("tt", (2, 2)), ("matrix", 2))
    ]
    assert bool((losses[0] >= losses[1] - 1e-9).all())
    assert bool((losses[1] >= losses[2] - 1e-9).all())


def test_a_kronecker_gram_is_recognized_and_solved_in_closed_form():
    kernel, position = (normal(i, 9, k) for i, k in ((6, L), (7, P)))
    gram = torch.kron(kernel.T @ kernel, position.T @ position)
    draws = some_draws()
    closed = kr.fit(dataclasses.replace(draws, gram=gram), "matrix", 2)
    assert set(closed.origin) == {"closed form"}
    assert float(closed.gradient_norm.max()) < 1e-9
    nudged = gram.clone()
    nudged[0, 0] *= 1 + 1e-6
    searched = kr.fit(dataclasses.replace(draws, gram=nudged), "matrix", 2, starts=8)
    assert "closed form" not in searched.origin
    torch.testing.assert_close(searched.loss, closed.loss, rtol=1e-5, atol=1e-5)
    shaped = gram.reshape(L, P, L, P).permute(0, 2, 1, 3)
    assert is_kronecker(shaped)
    assert not is_kronecker(nudged.reshape(L, P, L, P).permute(0, 2, 1, 3))


def test_draws_refuse_what_does_not_fit_together():
    draws = some_draws()
    with pytest.raises(ShapeError, match=r"gram has shape \(23, 23\)"):
        dataclasses.replace(draws, gram=draws.gram[1:, 1:])
    with pytest.raises(ShapeError, match=r"total has shape \(5, 1\)"):
        dataclasses.replace(draws, total=draws.total[:, :1])
    with pytest.raises(NonFiniteError, match="cross holds NaN"):
        dataclasses.replace(draws, cross=draws.cross * torch.nan)
    with pytest.raises(TypeError, match=r"gram is torch\.float32"):
        dataclasses.replace(draws, gram=draws.gram.float())
    one = kr.Statistics.from_batches([(normal(0, 80, L, P), normal(1, 80, 2))])
    other = kr.Statistics.from_batches([(normal(0, 80, L, P), normal(1, 80, 1))])
    with pytest.raises(ShapeError, match="One shape"):
        kr.Draws.stack([one, other])
    with pytest.raises(ValueError, match="'tt' takes one bond behind each kernel mode"):
        kr.fit(draws, "tt", 2)
    with pytest.raises(ValueError, match="r_1 = 3 is not attainable"):
        kr.fit(draws, "tt", (3, 2))


def test_draws_refuse_what_are_the_moments_of_no_data():
    eye, cross, total = torch.eye(3).double(), torch.ones(2, 3, 1).double(), torch.ones(2, 1)
    total = 4 * total.double()
    assert len(Draws(eye, cross, total, (3,), 1)) == 2
    skew = eye.clone()
    skew[0, 1] = 0.1
    with pytest.raises(ShapeError, match="m ≥ 1 is needed"):
        Draws(eye, cross[:0], total[:0], (3,), 1)
    with pytest.raises(ValueError, match="not symmetric"):
        Draws(skew, cross, total, (3,), 1)
    with pytest.raises(ValueError, match="negative eigenvalues"):
        Draws(torch.diag(torch.tensor([1.0, 1.0, -0.1]).double()), cross, total, (3,), 1)
    with pytest.raises(ValueError, match="total is 2 and the design alone explains 3 of it"):
        Draws(eye, cross, total / 2, (3,), 1)
    with pytest.raises(ValueError, match="total is -4"):
        Draws(torch.stack([eye, eye]), cross, -total, (3,), 1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"noise": -1.0}, ValueError, "noise=-1.0: a finite number ≥ 0"),
        ({"draws": 0}, ValueError, "draws=0: at least 1"),
        ({"samples": 0}, ValueError, "samples=0: at least 1"),
        ({"modes": (5,)}, ShapeError, r"weight has shape \(3, 2, 1\)"),
        ({"weight": torch.ones(3, 2, 1)}, TypeError, r"weight is torch\.float32"),
        ({"gram": torch.full((6, 6), math.nan).double()}, NonFiniteError, "gram holds NaN"),
    ],
)
def test_draws_of_the_noise_refuse_what_has_no_meaning(change, error, message):
    generator = torch_stream(0, "refused")
    options = {"samples": 10, "noise": 1.0, "draws": 2, "modes": (3,), "generator": generator}
    options |= {"gram": torch.eye(6).double(), "weight": torch.ones(3, 2, 1).double()}
    with pytest.raises(error, match=message):
        Draws.gaussian(**options | change)


def test_moments_of_data_are_those_of_each_regression():
    X, Y = normal(0, 4, 9, 6), normal(1, 4, 9, 2)
    own, shared = Draws.from_data(X, Y, modes=(2, 3)), Draws.from_data(X[0], Y, modes=(6,))
    for i in range(4):
        torch.testing.assert_close(own.gram[i], X[i].T @ X[i] / 9)
        torch.testing.assert_close(own.cross[i], X[i].T @ Y[i] / 9)
        torch.testing.assert_close(shared.cross[i], X[0].T @ Y[i] / 9)
    torch.testing.assert_close(own.total, (Y**2).mean(1))
    assert shared.gram.shape == (6, 6)
    with pytest.raises(ShapeError, match=r"X has shape \(4, 9, 6\) and Y \(9, 2\)"):
        Draws.from_data(X, Y[0], modes=(6,))
