"""Recovery: ranks against brute force, exact fits told from small losses, pairs that look alike."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from krratio.experiments.identifiability import (
    exact_sampled_rank,
    first_samples,
    predicted_rank,
    sampled_ranks,
    twins,
)
from krratio.experiments.recovery import EXACT, attempt, channel_bottleneck, draw_trials
from krratio.experiments.success_rates import crossing, paired_difference, wilson

UNEQUAL = [(5, 2, 1, 2), (7, 3, 2, 2), (6, 1, 4, 3), (4, 3, 5, 4), (5, 2, 9, 2), (9, 2, 4, 3)]


def rank_by_hand(L, P, T, r, n):
    """Of the derivatives of y_nt = sum Z_nlp A_lr B_rpt, written out."""
    draw = np.random.default_rng([L, P, T, r, n])
    A, B, Z = draw.normal(size=(L, r)), draw.normal(size=(r, P, T)), draw.normal(size=(n, L, P))
    by_kernels = np.einsum("nlp,rpt->ntlr", Z, B).reshape(n * T, -1)
    features = np.einsum("nlp,lr->nrp", Z, A).reshape(n, -1)
    return np.linalg.matrix_rank(np.hstack([by_kernels, np.kron(features, np.eye(T))]), tol=1e-8)


@pytest.mark.parametrize(("L", "P", "T", "r"), UNEQUAL)
def test_the_rank_of_samples_is_the_formula_by_hand_and_modulo_a_prime(L, P, T, r):
    needed, d = first_samples(L=L, P=P, T=T, r=r), r * (L + P * T - r)
    for n in range(1, needed + 2):
        predicted = predicted_rank(n, L=L, P=P, T=T, r=r)
        assert rank_by_hand(L, P, T, r, n) == predicted
        for K in (r, 2 * r):
            network = channel_bottleneck(r, K, L=L, P=P, T=T)
            assert exact_sampled_rank(network, (L, P), samples=n, seed=1) == predicted
        assert (predicted == d) == (n >= needed)


def test_one_output_needs_the_dimension_and_one_position_the_inputs():
    assert first_samples(L=8, P=7, T=1, r=2) == 26
    assert first_samples(L=30, P=1, T=10, r=2) == 30


def test_a_jacobian_that_is_not_of_integers_is_refused():
    network = nn.Sequential(nn.AvgPool1d(3), nn.Flatten(), nn.Linear(4, 2, bias=False))
    with pytest.raises(ValueError, match="integers below"):
        exact_sampled_rank(network, (2, 6), samples=3, seed=0)


def test_below_the_dimension_every_fit_is_another_function_and_above_it_the_truth():
    network, d = channel_bottleneck(1, 3, L=4, P=3), 6
    for n in (d - 1, d + 1, d + 3):
        data = draw_trials(network, (4, 3), samples=n, trials=6, seed=0)
        assert (sampled_ranks(data, network, data.theta) == min(n, d)).all()
        found = attempt(data, network, starts=5, seed=0)
        assert found.exact.any()
        assert (found.recovered[found.exact] == (n > d)).all()


def test_a_truth_has_outputs_of_variance_one_and_is_a_fit_to_rounding():
    network = channel_bottleneck(2, 2, L=5, P=3, T=2)
    data = draw_trials(network, (5, 3), samples=400, trials=4, seed=0)
    assert torch.allclose(data.y.square().mean(), torch.tensor(1.0).double(), atol=0.1)
    assert torch.allclose(data.weight.flatten(1).norm(dim=1), torch.tensor(2.0).double().sqrt())
    assert torch.allclose(data.seen(data.weight), data.y)
    assert attempt(data, network, starts=0, seed=0).error.max() < 1e-12


def test_noise_enters_with_its_size_and_the_fit_of_a_linear_class_is_least_squares():
    network = channel_bottleneck(2, 2, L=4, P=2)  # rank 2 is all matrices
    data = draw_trials(network, (4, 2), samples=500, trials=3, noise=0.5, seed=0)
    errors = data.y - data.seen(data.weight)
    assert float(errors.std()) == pytest.approx(0.5, rel=0.1)
    found = attempt(data, network, starts=0, seed=0)
    closed = torch.linalg.lstsq(data.X, data.y).solution.mT
    assert torch.allclose(found.weight[0], closed, atol=1e-8)


def test_starts_stop_where_nothing_is_left_and_do_not_depend_on_their_number():
    network = channel_bottleneck(1, 1, L=4, P=3)
    data = draw_trials(network, (4, 3), samples=9, trials=8, seed=0)
    everything = attempt(data, network, starts=3, seed=0)
    sparing = attempt(data, network, starts=3, seed=0, until="recovered")
    tried = ~sparing.error.isnan()
    assert tried[0].all()
    assert (tried[1] == ~sparing.recovered[0]).all()
    assert torch.allclose(sparing.residual[tried], everything.residual[tried], atol=1e-12)
    assert (sparing.solved(3) == everything.solved(3)).all()


def test_the_truth_of_another_network_is_no_start():
    data = draw_trials(channel_bottleneck(1, 1), (8, 7), samples=9, trials=2, seed=0)
    with pytest.raises(ValueError, match=r"16 weights.*has 24"):
        attempt(data, channel_bottleneck(1, 2), starts=0, seed=0)


def test_zero_loss_and_small_loss_are_orders_of_magnitude_apart():
    network = channel_bottleneck(2, 2)
    data = draw_trials(network, (8, 7), samples=27, trials=30, seed=0)
    found = attempt(data, network, starts=3, seed=0)
    assert found.exact.any()
    assert found.residual[found.exact].max() < EXACT / 100
    assert found.residual[~found.exact].min() > 100 * EXACT


def test_twins_are_two_members_with_the_same_data_up_to_the_difference_sets_dimension():
    dimension = 2 * (5 + 4 - 2)  # differences of rank-one 5 × 4 matrices
    gap, pairs = twins(1, L=5, P=4, samples=dimension - 1, trials=6, starts=4, seed=0)
    assert (gap < 1e-6).any()
    assert (torch.linalg.svdvals(pairs[gap < 1e-6])[..., 1] < 1e-12).all()
    gap, pairs = twins(1, L=5, P=4, samples=dimension, trials=6, starts=4, seed=0)
    assert (gap == math.inf).all()
    assert pairs.isnan().all()


@pytest.mark.parametrize(("won", "of"), [(0, 7), (3, 16), (16, 16), (33, 72)])
def test_wilsons_interval_is_that_of_scipy(won, of):
    expected = stats.binomtest(won, of).proportion_ci(method="wilson")
    assert wilson(won, of) == pytest.approx((expected.low, expected.high))


def test_more_successes_than_trials_are_refused():
    for won, of in ((3, 2), (0, 0), (-1, 4)):
        with pytest.raises(ValueError, match=f"{won} successes in {of} trials"):
            wilson(won, of)


def test_paired_differences_count_those_that_differ():
    first = np.array([True] * 6 + [False] * 4)
    second = np.array([True] * 4 + [False] * 2 + [True] * 3 + [False])
    difference, low, high = paired_difference(first, second)
    assert difference == pytest.approx(0.1)
    assert (low + high) / 2 == pytest.approx(1 / 12)
    assert low < 0 < high
    assert paired_difference(first, first)[2] > 0


def test_a_curve_crosses_one_half_where_it_was_put():
    x, generator = np.linspace(1, 2, 9), np.random.default_rng(0)
    rate = 1 / (1 + np.exp(-10 * (x - np.array([[1.3], [1.5]]))))
    found = crossing(x, generator.random((2, 9, 400)) < rate[..., None], resamples=200, seed=0)
    assert found["half"].to_list() == pytest.approx([1.3, 1.5], abs=0.03)
    assert found["difference"].to_list() == pytest.approx([0, 0.2], abs=0.04)
    assert (found["half_low"] < [1.3, 1.5]).all()
    assert (found["half_high"] > [1.3, 1.5]).all()
    assert found["difference_low"][1] > 0.1


@pytest.mark.parametrize("cap", range(20, 60, 3))
def test_a_descent_may_end_on_a_refused_step(cap):
    network = channel_bottleneck(2, 2, L=6, P=3, T=3)
    trials = draw_trials(network, (6, 3), samples=8, trials=1, seed=1)
    found = attempt(trials, network, starts=1, seed=1, iterations=cap)
    assert bool(torch.isfinite(found.residual).all())
