"""Least squares over low-rank classes: closed forms where they are true, brute force elsewhere."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from krratio.errors import NonFiniteError, ShapeError
from krratio.experiments.charts import FreeChart
from krratio.experiments.draws import Draws
from krratio.experiments.estimators import SAME_LOSS, fit, full
from krratio.experiments.kernels import kernel_format
from krratio.experiments.reduced import Problem
from krratio.experiments.statistics import Statistics
from krratio.experiments.structured import StructuredChart
from krratio.experiments.trust_region import solve_ball

MODES, P, T = (2, 3), 4, 3  # L = 6; every size differs
L = 6


def normal(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def correlated(seed, samples=200, modes=MODES, positions=P, outputs=T, rank=2, noise=4.0):
    """Patches whose Gram is not a Kronecker product, outputs from a low-rank truth and noise."""
    volume = int(np.prod(modes))
    size = volume * positions
    Z = normal(seed, samples, size) @ normal(seed + 1, size, size) + 3.0
    truth = normal(seed + 2, volume, rank) @ normal(seed + 3, rank, positions * outputs)
    Y = Z @ truth.reshape(size, outputs) + noise * size**0.5 * normal(seed + 4, samples, outputs)
    return Z.reshape(samples, *modes, positions), Y - 5.0


def statistics(seed=0, **sizes):
    return Statistics.from_batches([correlated(seed, **sizes)])


def reduced_value(problem, kernels):
    """f(A) from the dense Gram and a general solver: the independent witness."""
    size = problem.shape[0] * problem.shape[1]
    gram = problem.raw_gram + problem.ridge * torch.eye(size).double()
    lifted = torch.kron(kernels.contiguous(), torch.eye(problem.shape[1]).double())
    cross = lifted.T @ problem.raw_cross[0]
    solved = torch.linalg.solve(lifted.T @ gram @ lifted, cross)
    return problem.half_total[0] - (cross * solved).sum() / 2


def truncated(stats, rank):
    """The whitened unconstrained solution truncated to ``rank``, optimal for a Kronecker Gram."""
    volume, positions, outputs = stats.shape
    gram = stats.gram.reshape(volume, positions, volume, positions)
    left = torch.linalg.cholesky(torch.einsum("lpmp->lm", gram))
    right = torch.linalg.cholesky(torch.einsum("lplq->pq", gram))
    W = torch.linalg.solve(stats.gram, stats.cross).reshape(stats.shape)
    white = torch.einsum("lm,lpt,pq->mqt", left, W, right).flatten(1)
    U, s, V = torch.linalg.svd(white, full_matrices=False)
    low = (U[:, :rank] * s[:rank] @ V[:rank]).reshape(volume, positions, outputs)
    return torch.einsum("ml,lpt,qp->mqt", left.inverse().T, low, right.inverse().T)


# Statistics


def test_statistics_are_the_centred_moments_however_the_images_are_batched():
    Z, Y = correlated(0)
    flat, centred = Z.flatten(1), Y - Y.mean(0)
    stats = Statistics.from_batches([(Z[:7], Y[:7]), (Z[7:150], Y[7:150]), (Z[150:], Y[150:])])
    zc = flat - flat.mean(0)
    torch.testing.assert_close(stats.gram, zc.T @ zc / 200, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(stats.cross, zc.T @ centred / 200, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(stats.total, (centred**2).mean(0), rtol=1e-12, atol=0)
    assert stats.shape == (L, P, T)
    assert (stats.samples, stats.modes) == (200, MODES)


def test_statistics_keep_their_digits_when_means_are_far_from_zero():
    Z, Y = correlated(0)
    near, far = (Statistics.from_batches([(Z + shift, Y + shift)]) for shift in (0.0, 1e6))
    # The shift itself costs 1e6 · eps of each entry; moments about zero would lose 1e12 · eps.
    torch.testing.assert_close(far.gram, near.gram, rtol=1e-7, atol=1e-7)


def test_loss_and_bias_are_those_of_actual_predictions():
    Z, Y = correlated(0)
    stats, W = Statistics.from_batches([(Z, Y)]), normal(9, L, P, T)
    predicted = Z.flatten(1) @ W.reshape(-1, T) + stats.bias(W)
    squares = ((Y - predicted) ** 2).sum()
    assert stats.mse(W) == pytest.approx(float(squares) / (200 * T), rel=1e-12)
    expected = float(squares) / 400 + 0.7 / 2 * float((W**2).sum())
    assert stats.loss(W, ridge=0.7) == pytest.approx(expected, rel=1e-12)


def test_merged_modes_can_be_named_afterwards():
    Z, Y = correlated(0)
    merged = Statistics.from_batches([(Z.flatten(1, 2), Y)], modes=MODES)
    assert merged.modes == MODES
    assert torch.equal(merged.gram, Statistics.from_batches([(Z, Y)]).gram)


def test_statistics_refuse_what_they_cannot_use():
    Z, Y = correlated(0)
    with pytest.raises(ShapeError, match="no batch"):
        Statistics.from_batches([])
    with pytest.raises(ShapeError, match=r"one_hot"):
        Statistics.from_batches([(Z, Y[:, 0])])
    with pytest.raises(ShapeError, match="Batch 1 has patches"):
        Statistics.from_batches([(Z, Y), (Z[..., 1:], Y)])
    with pytest.raises(ShapeError, match=r"product 8.*product 6"):
        Statistics.from_batches([(Z, Y)], modes=(2, 4))
    with pytest.raises(NonFiniteError, match="Batch 0: patches"):
        Statistics.from_batches([(Z.index_fill(0, torch.tensor(3), torch.nan), Y)])
    stats = Statistics.from_batches([(Z, Y)])
    with pytest.raises(ShapeError, match=r"weight has shape \(6, 4\)"):
        stats.mse(normal(0, L, P))
    with pytest.raises(ShapeError, match="cross has shape"):
        dataclasses.replace(stats, cross=stats.cross.T.contiguous())
    with pytest.raises(NonFiniteError, match="gram holds NaN"):
        dataclasses.replace(stats, gram=stats.gram * torch.nan)
    with pytest.raises(TypeError, match="float32"):
        dataclasses.replace(stats, gram=stats.gram.float())


# Derivatives


ONE = torch.zeros(1, dtype=torch.int64)  # the row of the only draw


def local(kind, ranks, seed=5):
    stats = statistics()
    problem = Problem(Draws.of(stats), 0.3)
    kernels = kernel_format(kind, ranks, stats.modes, P * T)
    chart = (FreeChart if kind == "matrix" else StructuredChart)(kernels, problem)
    blocks = kernels.random(np.random.default_rng(seed))
    theta = chart.enter(kernels.pack(blocks)[None])
    return problem, kernels, chart, theta, chart.expand(theta, ONE)


def test_gradient_and_hessian_on_the_grassmannian_are_those_of_automatic_differentiation():
    problem, _, chart, theta, found = local("matrix", 2)
    inner, outer = chart.kernels(theta)[0], found.lift[0]

    def value(X):
        return reduced_value(problem, problem.frame @ (inner + outer @ X))

    zero = torch.zeros(L - 2, 2).double()
    gradient = torch.func.grad(value)(zero)
    hessian = torch.func.jacrev(torch.func.grad(value))(zero).reshape(8, 8)
    assert found.value[0] == pytest.approx(float(value(zero)), rel=1e-12)
    torch.testing.assert_close(found.gradient[0], gradient.flatten(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.hessian[0], hessian, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize(
    ("kind", "ranks"), [("tucker", (1, 3, 2)), ("tucker", (2, 2, 3)), ("cp", 2), ("tt", (2, 3))]
)
def test_derivatives_in_structured_kernels_are_those_of_automatic_differentiation(kind, ranks):
    problem, kernels, _, theta, found = local(kind, ranks)
    lift = found.lift[0]

    def value(z):
        return reduced_value(problem, kernels.kernels(kernels.unpack(theta[0] + lift @ z)))

    zero = torch.zeros(lift.shape[1]).double()
    expected = torch.func.jacrev(torch.func.grad(value))(zero)
    moving = lift.norm(dim=0) > 0  # gauge directions have no lift and an arbitrary curvature
    assert 0 < int(moving.sum()) <= (L - kernels.rank) * kernels.rank
    gradient = torch.func.grad(value)(zero)
    torch.testing.assert_close(found.gradient[0], gradient, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(
        found.hessian[0][moving][:, moving], expected[moving][:, moving], rtol=1e-8, atol=1e-7
    )
    assert found.value[0] == pytest.approx(float(value(zero)), rel=1e-12)


@pytest.mark.parametrize(
    ("kind", "ranks"), [("matrix", 2), ("tucker", (2, 2, 3)), ("cp", 2), ("tt", (2, 3))]
)
def test_the_gradient_norm_is_that_of_the_projection_on_the_tangent_space(kind, ranks):
    _, kernels, chart, theta, found = local(kind, ranks)
    start = chart.leave(theta)[0]
    A = kernels.kernels(kernels.unpack(start))
    W = found.weight[0]
    fc = torch.linalg.lstsq(A, W.flatten(1)).solution

    def weight(theta, fc):
        return (kernels.kernels(kernels.unpack(theta)) @ fc).reshape(-1)

    by_theta, by_fc = torch.func.jacrev(weight, argnums=(0, 1))(start, fc)
    tangents = torch.cat([by_theta.flatten(1), by_fc.flatten(1)], 1)
    U, s, _ = torch.linalg.svd(tangents, full_matrices=False)
    slope = statistics().gram @ W.reshape(-1, T) + 0.3 * W.reshape(-1, T) - statistics().cross
    expected = (U[:, s > 1e-10 * s[0]].T @ slope.reshape(-1)).norm() / statistics().cross.norm()
    assert float(found.norm(ONE)[0]) == pytest.approx(float(expected), rel=1e-9)


def test_the_ball_problem_is_solved_exactly_also_in_the_hard_case():
    matrix = normal(1, 5, 5)
    eigenvalues, vectors = torch.linalg.eigh(matrix + matrix.T)
    hessian = vectors @ torch.diag(eigenvalues) @ vectors.T
    generic, orthogonal = normal(2, 5), vectors[:, 2]
    for gradient, radius in itertools.product((generic, orthogonal, 0 * generic), (0.1, 3.0)):
        step, decrease = solve_ball(
            gradient[None],
            eigenvalues[None],
            vectors[None],
            torch.tensor([radius], dtype=torch.float64),
        )
        z = step[0]
        assert float(z.norm()) == pytest.approx(radius, rel=1e-8)  # indefinite: on the boundary
        multiplier = -float(z @ (hessian @ z + gradient)) / radius**2
        assert multiplier >= -float(eigenvalues[0]) * (1 - 1e-8)
        residual = hessian @ z + multiplier * z + gradient
        assert float(residual.norm()) < 1e-7
        model = -float(gradient @ z + z @ hessian @ z / 2)
        assert float(decrease) == pytest.approx(model, rel=1e-8)


# Closed forms


def test_one_position_is_reduced_rank_regression():
    stats = statistics(positions=1, outputs=5)
    result = fit(stats, "matrix", 2, ridge=0.0, starts=4, exchanges=0)
    root = torch.linalg.cholesky(stats.gram)
    explained = torch.linalg.svdvals(torch.linalg.solve_triangular(root, stats.cross, upper=False))
    expected = float(stats.total.sum() - (explained[:2] ** 2).sum()) / 2
    assert result.loss == pytest.approx(expected, rel=1e-8)
    assert result.share_of_starts_at_best == 1.0


def test_a_kronecker_gram_has_the_truncated_whitened_solution_as_its_optimum():
    stats = statistics()
    factors = (normal(6, 9, L), normal(7, 11, P))
    gram = torch.kron(*(factor.T @ factor for factor in factors))
    kronecker = dataclasses.replace(stats, gram=gram, cross=stats.cross / 50)
    best = fit(kronecker, "matrix", 2, ridge=0.0, starts=4, exchanges=0)
    closed = truncated(kronecker, 2)
    assert best.loss == pytest.approx(kronecker.loss(closed), rel=1e-8)
    torch.testing.assert_close(best.weight, closed, rtol=1e-6, atol=1e-8)


def test_truncation_is_strictly_worse_where_the_gram_is_not_kronecker():
    stats = statistics()
    best = fit(stats, "matrix", 2, ridge=0.0)
    assert stats.loss(truncated(stats, 2)) > 1.01 * best.loss


def test_the_largest_rank_gives_the_unconstrained_optimum():
    stats = statistics()
    free = full(stats, ridge=0.1)
    normal_equations = stats.gram @ free.weight.reshape(-1, T) + 0.1 * free.weight.reshape(-1, T)
    torch.testing.assert_close(normal_equations, stats.cross, rtol=1e-9, atol=1e-9)
    for kind, ranks in (("matrix", L), ("tucker", (2, 3, L)), ("cp", L)):
        result = fit(stats, kind, ranks, ridge=0.1, starts=1, exchanges=0)
        assert result.converged
        assert result.loss == pytest.approx(free.loss, rel=1e-10)


def test_rank_beyond_the_columns_is_refused_but_their_number_gives_the_full_optimum():
    stats = statistics(positions=2, outputs=1)
    result = fit(stats, "matrix", 2, ridge=0.1, starts=3, exchanges=0)
    assert result.loss == pytest.approx(full(stats, ridge=0.1).loss, rel=1e-10)
    with pytest.raises(ValueError, match=r"R = 3 is not attainable; allowed are 1 to 2"):
        fit(stats, "matrix", 3, ridge=0.1)


# Optimality


@pytest.fixture(scope="module")
def best():
    return fit(statistics(), "matrix", 2, ridge=0.2)


def test_a_fit_is_a_local_minimum_to_rounding(best):
    assert best.converged
    assert best.gradient_norm <= 1e-10
    assert best.smallest_hessian_eigenvalue > 0
    assert torch.linalg.matrix_rank(best.weight.flatten(1)) == 2


def test_the_reported_numbers_are_those_of_the_weight(best):
    Z, Y = correlated(0)
    predicted = Z.flatten(1) @ best.weight.reshape(-1, T) + best.bias
    assert best.mse == pytest.approx(float(((Y - predicted) ** 2).mean()), rel=1e-10)
    assert best.loss == pytest.approx(statistics().loss(best.weight, ridge=0.2), rel=1e-10)


def test_no_step_of_alternating_least_squares_leaves_the_solution(best):
    stats = statistics()
    gram = stats.gram + 0.2 * torch.eye(L * P).double()
    A, B = best.factors
    for _ in range(3):
        lift = torch.kron(A.contiguous(), torch.eye(P).double())
        B = torch.linalg.solve(lift.T @ gram @ lift, lift.T @ stats.cross).reshape(2, P, T)
        G, c = gram.reshape(L, P, L, P), stats.cross.reshape(L, P, T)
        normal_matrix = torch.einsum("lpmq,rpt,sqt->lrms", G, B, B).reshape(2 * L, 2 * L)
        right = torch.einsum("lpt,rpt->lr", c, B).reshape(-1)
        A = torch.linalg.solve(normal_matrix, right).reshape(L, 2)
    torch.testing.assert_close(
        torch.einsum("lr,rpt->lpt", A, B), best.weight, rtol=1e-8, atol=1e-10
    )


def test_quasi_newton_from_many_starts_finds_nothing_lower(best):
    problem = Problem(Draws.of(statistics()), 0.2)
    slope = torch.func.grad_and_value(lambda A: reduced_value(problem, A))

    def both(x):
        gradient, value = slope(torch.from_numpy(x).reshape(L, 2))
        return float(value), gradient.numpy().ravel()

    starts = np.random.default_rng(8).standard_normal((8, 2 * L))
    values = [minimize(both, x, jac=True, method="L-BFGS-B").fun for x in starts]
    assert min(values) >= best.loss * (1 - 1e-9)
    assert min(values) == pytest.approx(best.loss, rel=1e-5)


def test_the_share_counts_the_random_starts_at_the_best_loss(best):
    at_best = [loss <= best.loss * (1 + 2 * SAME_LOSS) for loss in best.losses]
    assert len(best.losses) == 10
    assert best.share_of_starts_at_best == sum(at_best) / 10 > 0


def test_larger_classes_fit_better_and_none_beats_the_unconstrained_optimum():
    stats = statistics()
    bound = full(stats, ridge=0.2).loss
    losses = [fit(stats, "matrix", rank, ridge=0.2, exchanges=0).loss for rank in (1, 2, 3, 4)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] >= bound


def test_the_optimum_does_not_depend_on_the_basis_of_the_kernel_mode(best):
    stats = statistics()
    order = torch.randperm(L, generator=torch.Generator().manual_seed(0))
    rows = (order[:, None] * P + torch.arange(P)).reshape(-1)
    shuffled = dataclasses.replace(
        stats,
        gram=stats.gram[rows][:, rows],
        cross=stats.cross[rows],
        patch_mean=stats.patch_mean[rows],
    )
    again = fit(shuffled, "matrix", 2, ridge=0.2)
    torch.testing.assert_close(again.weight, best.weight[order], rtol=1e-7, atol=1e-9)


def test_scaling_the_outputs_scales_the_weight_and_no_relative_number(best):
    Z, Y = correlated(0)
    scaled = fit(Statistics.from_batches([(Z, 1e-4 * Y)]), "matrix", 2, ridge=0.2)
    torch.testing.assert_close(scaled.weight, 1e-4 * best.weight, rtol=1e-7, atol=1e-13)
    assert scaled.converged
    assert scaled.losses == pytest.approx([1e-8 * loss for loss in best.losses], rel=1e-6, abs=0)


def test_random_starts_are_keyed_by_their_number_not_by_how_many_there_are(best):
    few = fit(statistics(), "matrix", 2, ridge=0.2, starts=3, exchanges=0)
    assert few.losses == pytest.approx(best.losses[:3], rel=1e-9)
    other = fit(statistics(), "matrix", 2, ridge=0.2, seed=1, exchanges=0)
    assert other.losses != best.losses
    assert other.loss == pytest.approx(best.loss, rel=1e-9)


def test_exchanges_only_improve_on_the_starts_and_leave_their_losses_alone():
    stats = statistics(3, modes=(5, 3), positions=3, samples=120)
    alone, helped = (
        fit(stats, "matrix", 3, ridge=0.2, starts=2, exchanges=number, seed=5) for number in (0, 12)
    )
    assert helped.loss < alone.loss * (1 - 1e-3)  # both starts of this seed end in a local minimum
    assert helped.origin.startswith("exchange ")
    assert helped.losses == pytest.approx(alone.losses, rel=1e-12)
    assert helped.converged


def test_too_few_iterations_are_reported_as_not_converged():
    result = fit(statistics(), "matrix", 2, ridge=0.2, starts=1, exchanges=0, max_iterations=1)
    assert not result.converged
    assert result.gradient_norm > 1e-10


def test_outputs_without_relation_to_the_patches_give_the_zero_weight():
    Z, Y = correlated(0)
    stats = Statistics.from_batches([(Z, torch.ones_like(Y))])
    result = fit(stats, "matrix", 2, ridge=0.2, starts=2, exchanges=1)
    assert result.converged
    assert float(result.weight.abs().max()) < 1e-12


# Kernel formats


def test_tucker_without_compression_is_the_matrix_class(best):
    result = fit(statistics(), "tucker", (2, 3, 2), ridge=0.2, starts=4, exchanges=0)
    assert result.loss == pytest.approx(best.loss, rel=1e-9)


def test_compression_can_only_lose_and_rank_one_is_the_same_for_both_formats(best):
    stats = statistics()
    tucker = fit(stats, "tucker", (1, 2, 2), ridge=0.2, starts=3, exchanges=0)
    assert tucker.loss > best.loss
    one = [fit(stats, *kind, ridge=0.2, starts=6) for kind in (("tucker", (1, 1, 1)), ("cp", 1))]
    assert one[0].loss == pytest.approx(one[1].loss, rel=1e-9)


@pytest.mark.parametrize(
    ("kind", "ranks"), [("matrix", 3), ("tucker", (1, 2, 2)), ("cp", 2), ("tt", (2, 3))]
)
def test_factors_contract_to_a_weight_of_the_class(kind, ranks):
    result = fit(statistics(), kind, ranks, ridge=0.2, starts=2, exchanges=1)
    *blocks, fc = result.factors
    if kind == "matrix":
        kernels = blocks[0]
        torch.testing.assert_close(kernels.T @ kernels, torch.eye(3).double())
    elif kind == "tt":
        first, second = blocks
        assert [tuple(b.shape) for b in blocks] == [(1, 2, 2), (2, 3, 3)]
        kernels = torch.einsum("zca,alr->clr", first, second).reshape(L, 3)
        torch.testing.assert_close(kernels.T @ kernels, torch.eye(3).double())
    elif kind == "tucker":
        channel, spatial, core = blocks
        assert [tuple(b.shape) for b in blocks] == [(2, 1), (3, 2), (1, 2, 2)]
        kernels = torch.einsum("ca,lb,abr->clr", channel, spatial, core).reshape(L, 2)
    else:
        kernels = torch.einsum("cr,lr->clr", *blocks).reshape(L, 2)
    W = torch.einsum("lr,rpt->lpt", kernels, fc)
    torch.testing.assert_close(W, result.weight, rtol=1e-9, atol=1e-10)
    assert result.converged
    assert not result.diverged


def test_a_noiseless_cp_truth_is_recovered():
    modes, rank = (3, 4), 2
    truth = torch.einsum("cr,lr,rk->clk", normal(1, 3, 2), normal(2, 4, 2), normal(3, 2, P * T))
    Z, _ = correlated(0, modes=modes)
    stats = Statistics.from_batches([(Z, Z.flatten(1) @ truth.reshape(-1, T))])
    result = fit(stats, "cp", rank, ridge=0.0, starts=6, exchanges=0)
    torch.testing.assert_close(result.weight, truth.reshape(12, P, T), rtol=1e-5, atol=1e-6)


def test_cp_reports_divergence_where_no_best_approximation_exists():
    # de Silva and Lim (2008): this 2 × 2 × 2 tensor has rank 3 but is a limit of rank-2 tensors.
    tensor = torch.zeros(2, 2, 2).double()
    tensor[0, 0, 1] = tensor[0, 1, 0] = tensor[1, 0, 0] = 1.0
    stats = Statistics(
        gram=torch.eye(8).double(),
        cross=tensor.reshape(8, 1),
        total=torch.tensor([5.0]).double(),
        patch_mean=torch.zeros(8).double(),
        output_mean=torch.zeros(1).double(),
        samples=10,
        modes=(2, 2),
        positions=2,
    )
    result = fit(stats, "cp", 2, ridge=0.0, starts=2, exchanges=0)
    assert result.diverged
    assert not result.converged
    assert result.loss == pytest.approx(1.0, rel=1e-6)  # the infimum, (5 − 3) / 2
    assert fit(stats, "tucker", (2, 2, 2), ridge=0.0, starts=2, exchanges=0).converged


# Singular Gram and bad input


def overlapping():
    """5 × 5 patches of smooth 12 × 12 images, mean-pooled by 4: more features than pixels."""
    images = normal(0, 150, 1, 12, 12).cumsum(-1).cumsum(-2)
    patches = torch.nn.functional.unfold(images, 5).reshape(150, 25, 8, 8)
    Z = torch.nn.functional.avg_pool2d(patches, 4).reshape(150, 25, 4)
    Y = Z.flatten(1) @ normal(1, 100, 2) + 5 * normal(2, 150, 2)
    return Statistics.from_batches([(Z, Y)])


def test_overlapping_patches_have_a_singular_gram_and_a_ridge_makes_the_fit_converge():
    stats = overlapping()
    assert stats.rank == 81  # 9 × 9 distinct window means, not 5·5·2·2 = 100
    result = fit(stats, "matrix", 2, ridge=1e-4 * stats.scale, starts=3, exchanges=0)
    assert result.converged
    with pytest.raises(ValueError, match=r"rank 81 of 100.*1e-4 \* statistics\.scale = "):
        fit(stats, "matrix", 2, ridge=0.0)
    with pytest.raises(ValueError, match="rank 81 of 100"):
        full(stats, ridge=1e-18)


@pytest.mark.parametrize(
    ("kind", "ranks", "message"),
    [
        ("matrix", 0, r"R = 0 is not attainable; allowed are 1 to 6"),
        ("matrix", 7, r"R = 7 is not attainable; allowed are 1 to 6 = min\(L, P·T\)"),
        ("matrix", (2, 2), r"takes one rank R, given \(2, 2\)"),
        ("tucker", (2, 2), r"that is 3 ranks, given \(2, 2\)"),
        ("tucker", (3, 2, 2), r"R_1 = 3 is not attainable; allowed are 1 to 2"),
        ("tucker", (1, 2, 1), r"R_2 = 2 is not attainable; allowed are 1 to 1"),
        ("tucker", (1, 2, 3), r"R = 3 is not attainable; allowed are 1 to 2"),
        ("tucker", (0, 2, 2), r"R_1 = 0 is not attainable"),
        ("cp", (2, 2), r"'cp' takes one rank R"),
        ("cp", 7, r"R = 7 is not attainable; allowed are 1 to 6 = L"),
        ("svd", 2, r"format='svd' is unknown; allowed: 'matrix', 'tucker', 'cp'"),
    ],
)
def test_unattainable_ranks_are_refused_with_what_is_allowed(kind, ranks, message):
    with pytest.raises(ValueError, match=message):
        fit(statistics(), kind, ranks, ridge=0.1)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"ridge": -1.0}, r"ridge=-1.0: a finite number ≥ 0"),
        ({"ridge": float("nan")}, r"ridge=nan"),
        ({"starts": 0}, r"starts=0: an integer of at least 1"),
        ({"exchanges": -1}, r"exchanges=-1: an integer of at least 0"),
        ({"max_iterations": 0}, r"max_iterations=0: an integer of at least 1"),
        ({"tolerance": 0.0}, r"tolerance=0.0: a positive number"),
    ],
)
def test_bad_options_are_refused_with_their_value(option, message):
    with pytest.raises(ValueError, match=message):
        fit(statistics(), "matrix", 2, **({"ridge": 0.1} | option))


def test_ranks_must_be_integers_and_cp_needs_separate_modes():
    with pytest.raises(TypeError, match=r"ranks=2\.0: an integer"):
        fit(statistics(), "matrix", 2.0, ridge=0.1)
    Z, Y = correlated(0)
    merged = Statistics.from_batches([(Z.flatten(1, 2), Y)])
    with pytest.raises(ValueError, match=r"at least two kernel modes.*modes=\(C, …\)"):
        fit(merged, "cp", 2, ridge=0.1)
