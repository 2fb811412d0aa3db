"""Bounds against exact answers and simulations that they have to hold in."""

import inspect
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg, signal, stats

import krratio as kr
from krratio.experiments.draws import Draws
from krratio.experiments.seeds import stream, torch_stream

positive = st.floats(1e-3, 1e4)
kinds = st.sampled_from(["law", "upper", "lower"])


@given(
    d=st.floats(1, 1e4),
    noise=positive,
    ratio=st.floats(1, 1e6),
    confidence=st.floats(0.01, 0.999),
    kind=kinds,
    factors=st.integers(3, 6),
)
def test_sample_size_and_error_bound_are_inverse(d, noise, ratio, confidence, kind, factors):
    options = {"noise": noise, "confidence": confidence, "kind": kind, "factors": factors}
    n = ratio * d
    error = kr.error_bound(d, n=n, **options)
    assert kr.sample_size(d, error=error, **options) == pytest.approx(n, rel=1e-9)


@pytest.mark.parametrize("kind", ["law", "lower"])
def test_fewer_samples_than_dimensions_are_refused_in_both_directions(kind):
    """With n < d least squares interpolates: its error has n degrees of freedom, not d."""
    with pytest.raises(ValueError, match="n=10: at least dimension / outputs = 78 is needed"):
        kr.error_bound([5, 78], n=10, noise=1, kind=kind)
    largest = float(kr.error_bound(78, n=78, noise=1, kind=kind))
    assert kr.sample_size(78, noise=1, error=largest, kind=kind) == pytest.approx(78)
    with pytest.raises(ValueError, match=rf"error=2\.5: at most {largest:.4g} is needed"):
        kr.sample_size(78, noise=1, error=[0.1, 2.5], kind=kind)
    assert kr.sample_size(78, noise=1, error=100, kind="upper") < 78
    # With ten outputs 50 dimensions are seen by 5 samples.
    error = kr.error_bound(50, n=40, noise=1, kind=kind, outputs=10)
    assert kr.sample_size(50, noise=1, error=error, kind=kind, outputs=10) == pytest.approx(40)
    with pytest.raises(ValueError, match="at least dimension / outputs = 5 is needed"):
        kr.error_bound(50, n=4, noise=1, kind=kind, outputs=10)


def test_more_factors_make_the_upper_bound_larger():
    three, four = (
        float(kr.error_bound(78, n=1000, noise=1, kind="upper", factors=h)) for h in (3, 4)
    )
    assert four == pytest.approx(float(kr.bounds.isometry(78, n=1000, noise=1, factors=4)))
    assert 1.02 < four / three < 1.04


def test_arrays_broadcast():
    d, n = np.array([10.0, 20.0]), np.array([[100.0], [400.0], [900.0]])
    errors = kr.error_bound(d, n=n, noise=2.0)
    assert errors.shape == (3, 2)
    assert np.allclose(errors[0] / errors[1], 2)


def test_the_law_is_exact_for_a_linear_class():
    """Least squares on d regressors: the error stays below the bound in 90 % of runs."""
    d, n, noise, runs = 7, 40, 1.5, 4000
    generator = stream(0, "bounds", "law")
    basis = np.linalg.qr(generator.normal(size=(n, d)))[0]
    projected = generator.normal(scale=noise, size=(runs, n)) @ basis
    errors = np.sqrt((projected**2).sum(1) / n)
    covered = (errors <= kr.error_bound(d, n=n, noise=noise, confidence=0.9)).sum()
    low, high = stats.binomtest(int(covered), runs).proportion_ci(0.999)
    assert low < 0.9 < high
    assert np.sqrt((errors**2).mean()) >= 0.98 * kr.error_bound(d, n=n, noise=noise, kind="lower")


@pytest.mark.parametrize(("L", "P", "r"), [(6, 4, 1), (12, 9, 2), (20, 15, 3)])
def test_the_upper_bound_holds_for_low_rank_matrices(L, P, r):
    """Isotropic design, truth zero: least squares keeps the r largest singular values of noise."""
    n, runs = 1000, 400
    noise = stream(0, "bounds", L, P, r).normal(size=(runs, L, P)) / math.sqrt(n)
    values = np.linalg.svd(noise, compute_uv=False)[:, :r]
    errors = np.sqrt((values**2).sum(1))
    exponent = kr.counts.cnn(l=(L,), K=2 * r, P=P).covering
    bound = kr.error_bound(exponent, n=n, noise=1.0, confidence=0.95, kind="upper")
    general = kr.bounds.fixed_design(exponent, n=n, noise=1.0, rank=L * P)
    assert errors.max() < bound
    assert errors.max() < general
    sharper = kr.bounds.operator_norm(L=L, K=r, P=P, n=n, noise=1.0)
    assert errors.max() < sharper < min(bound, general)
    frozen = kr.bounds.frozen_matrix(L=L, K=r, P=P)
    lower = kr.error_bound(frozen, n=n, noise=1.0, kind="lower")
    assert lower < np.sqrt((errors**2).mean()) < bound


def test_no_estimator_beats_the_frozen_space_and_least_squares_attains_it():
    """On {A B: A fixed} the risk of least squares is r P / n exactly."""
    L, P, r, n, runs = 7, 5, 2, 100, 4000
    generator = stream(0, "bounds", "frozen")
    A = np.linalg.qr(generator.normal(size=(L, r)))[0]
    noise = generator.normal(size=(runs, L, P)) / math.sqrt(n)
    risks = ((A.T @ noise) ** 2).sum((1, 2))
    half = 3.3 * risks.std() / math.sqrt(runs)
    assert abs(risks.mean() - r * P / n) < half
    assert kr.bounds.frozen_matrix(L=L, K=r, P=P) == r * max(L, P)


def test_a_design_of_the_stated_size_keeps_all_differences_of_rank_one():
    """Rank-two differences of 3 x 2 matrices are all matrices: extreme singular values decide."""
    exponent = kr.counts.cnn(l=(3,), K=2, P=2).covering
    n = math.ceil(kr.bounds.design_size(exponent))
    generator = stream(0, "bounds", "design")
    values = [
        np.linalg.svd(generator.normal(size=(n, 6)), compute_uv=False)[[0, -1]] / math.sqrt(n)
        for _ in range(50)
    ]
    assert np.min(values) > 0.57
    assert np.max(values) < 1.43


def ar1(rho, shape, generator):
    steps = generator.normal(size=shape)
    steps[0] /= math.sqrt(1 - rho**2)
    values = np.empty(shape)
    values[0] = steps[0]
    for i in range(1, shape[0]):
        values[i] = rho * values[i - 1] + steps[i]
    return values * math.sqrt(1 - rho**2)


@pytest.mark.parametrize(
    ("covariates", "noise", "factor"),
    [(0.7, 0.7, 2.92), (0.7, -0.7, 0.342), (0.7, 0, 1), (0, 0.7, 1)],
)
def test_dependence_costs_only_where_both_are_dependent(covariates, noise, factor):
    assert kr.bounds.law_factor(covariates=covariates, noise=noise) == pytest.approx(
        factor, abs=5e-3
    )
    generator, n, runs = stream(0, "bounds", "ar1"), 1500, 4000
    x, e = ar1(covariates, (n, runs), generator), ar1(noise, (n, runs), generator)
    risks = (x * e).sum(0) ** 2 / (x**2).sum(0)  # n times the squared in-sample error, d = 1
    half = 3.3 * risks.std() / math.sqrt(runs)
    assert abs(risks.mean() - factor) < half


def test_covariances_of_an_ar1_stretch_lie_between_its_spectral_bounds():
    low, high = kr.bounds.ar1_spectral_bounds(0.6)
    lags = np.abs(np.subtract.outer(np.arange(60), np.arange(60)))
    values = np.linalg.eigvalsh(0.6**lags)
    assert low < values[0] < 1.1 * low
    assert 0.9 * high < values[-1] < high


def test_var1_bounds_contain_those_of_ar1_and_the_covariances_of_a_stretch():
    low, high = kr.bounds.var1_spectral_bounds(0.6 * np.eye(2), 0.64 * np.eye(2))
    one = kr.bounds.ar1_spectral_bounds(0.6)
    assert 0.96 * one[0] < low <= one[0]
    assert one[1] <= high < 1.04 * one[1]
    transition = np.array([[0.5, 0.9], [0.0, -0.3]])  # of norm above one, and stationary
    innovations = np.array([[1.0, 0.3], [0.3, 0.5]])
    low, high = kr.bounds.var1_spectral_bounds(transition, innovations)
    stationary = linalg.solve_discrete_lyapunov(transition, innovations)
    powers = [np.linalg.matrix_power(transition, k) for k in range(40)]
    blocks = [[powers[max(i - j, 0)] @ stationary for j in range(40)] for i in range(40)]
    values = np.linalg.eigvalsh(np.block(blocks))  # reads the lower triangle, which is right
    assert low < values[0]
    assert values[-1] < high < 4 * values[-1]


@pytest.mark.parametrize("radius", [0.4, 0.99])
@pytest.mark.parametrize("angle", [0.7, 2.0])
def test_var1_bounds_of_a_damped_rotation_are_those_at_its_own_frequency(radius, angle):
    """Singular values of I - A e^(-iw) are |1 - r e^(i(+-t - w))|: the least is 1 - r, at w = t."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    low, high = kr.bounds.var1_spectral_bounds(radius * turn, np.diag([1.0, 3.0]))
    assert 0.97 / (1 + radius) ** 2 < low <= 1 / (1 + radius) ** 2
    assert 3 / (1 - radius) ** 2 <= high < 3 * 1.03 / (1 - radius) ** 2


def test_a_million_frequencies_decide_how_close_to_a_unit_root_a_process_may_be():
    """The grid must be finer than 2 slack (1 - r) / pi."""
    low, high = kr.bounds.var1_spectral_bounds(0.9998 * np.eye(1), np.eye(1))
    assert 1 / 0.0002**2 <= high < 1.03 / 0.0002**2
    assert 0.97 / 1.9998**2 < low <= 1 / 1.9998**2
    with pytest.raises(ValueError, match=r"radius 0\.9999, too close to a unit root"):
        kr.bounds.var1_spectral_bounds(0.9999 * np.eye(1), np.eye(1))


def test_a_process_with_a_unit_root_or_without_noise_is_refused():
    with pytest.raises(ValueError, match="spectral radius 1;"):
        kr.bounds.var1_spectral_bounds(np.eye(2), np.eye(2))
    with pytest.raises(ValueError, match="innovations: smallest eigenvalue 0;"):
        kr.bounds.var1_spectral_bounds(np.zeros((2, 2)), np.diag([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"transition \(2, 2\) and innovations \(3, 3\)"):
        kr.bounds.var1_spectral_bounds(np.zeros((2, 2)), np.eye(3))


def test_the_covering_bound_holds_for_tucker_tensors():
    """Truth zero, isotropic design: what least squares over a Tucker format makes of noise."""
    modes, ranks, n = (3, 4, 5), (1, 2, 2), 500
    draws = kr.Draws.gaussian(
        torch.eye(60, dtype=torch.float64),
        torch.zeros(12, 5, 1, dtype=torch.float64),
        samples=n,
        noise=1.0,
        draws=40,
        modes=modes[:2],
        generator=torch_stream(0, "bounds", "tucker"),
    )
    errors = kr.fit(draws, "tucker", ranks, starts=3, exchanges=0).weight.flatten(1).norm(dim=1)
    doubled = kr.counts.tucker(l=modes[:2], R_j=(2, 4), R=4, K=4, P=5).covering
    bound = kr.bounds.isometry(doubled, n=n, noise=1.0, factors=4)
    assert float(errors.max()) < bound < 20 * float(errors.mean())


@pytest.mark.parametrize(
    ("frozen", "counts"),
    [
        (kr.bounds.frozen_matrix(L=7, K=2, P=5), kr.counts.cnn(l=(7,), K=2, P=5)),
        (
            kr.bounds.frozen_tucker(modes=(5, 4, 6), ranks=(2, 3, 4)),
            kr.counts.tucker(l=(5, 4), R_j=(2, 3), R=4, K=8, P=6),
        ),
        (kr.bounds.frozen_cp(modes=(3, 4, 6), rank=2), kr.counts.cp(l=(3, 4), R=2, K=4, P=6)),
        (kr.bounds.frozen_tt(modes=(6, 4, 5), bonds=(3, 2)), kr.counts.tt(n=(6, 4, 5), r=(3, 2))),
    ],
    ids=["matrix", "tucker", "cp", "tt"],
)
def test_a_linear_space_in_the_class_is_no_larger_than_the_class(frozen, counts):
    assert counts.intrinsic / 3 < frozen <= counts.intrinsic


def test_the_frozen_spaces_by_hand():
    assert kr.bounds.frozen_tucker(modes=(5, 4, 6), ranks=(2, 3, 4)) == 24
    assert kr.bounds.frozen_tucker(modes=(3, 10, 2), ranks=(2, 3, 2)) == 30
    assert kr.bounds.frozen_cp(modes=(2, 2, 9), rank=7) == 9 * 4
    assert kr.bounds.frozen_tt(modes=(6, 4, 5), bonds=(3, 2)) == 24


def test_all_bounds_are_monotone():
    for kind in ("law", "upper", "lower"):
        by_d = [float(kr.error_bound(d, n=100, noise=1, kind=kind)) for d in (1, 5, 50)]
        by_n = [float(kr.error_bound(5, n=n, noise=1, kind=kind)) for n in (10, 100, 1000)]
        assert by_d == sorted(by_d)
        assert by_n == sorted(by_n, reverse=True)
    levels = [float(kr.error_bound(5, n=9, noise=1, confidence=c)) for c in (0.5, 0.9, 0.99)]
    assert levels == sorted(levels)


def test_differences_of_matrices_have_twice_the_rank_but_no_more_than_all():
    root = math.sqrt(20) + math.sqrt(30) + math.sqrt(-2 * math.log(0.05))
    for K, doubled in ((1, 2), (3, 6), (11, 20), (25, 20)):
        bound = kr.bounds.operator_norm(L=20, P=30, K=K, n=100, noise=1.5)
        assert bound == pytest.approx(2 * 1.5 * math.sqrt(doubled) * root / 10, rel=1e-12)


@pytest.mark.parametrize(("delta", "h", "c"), [(0.05, 3, 78), (0.001, 4, 7)])
def test_the_constants_are_those_of_the_proofs(delta, h, c):
    """Every bound written out once more, at two confidences, classes and designs."""
    n, sigma, log = 900, 1.7, math.log
    options = {"noise": sigma, "confidence": 1 - delta}
    net = math.sqrt(2 * (c * log(3 * h * 16) + log(1 / delta)) / n)
    assert kr.bounds.isometry(c, n=n, factors=h, **options) == pytest.approx(
        2 * sigma * net * 16 / 15, rel=1e-9
    )
    L, P, K = 9, 4, h - 2
    width = math.sqrt(L) + math.sqrt(P) + math.sqrt(2 * log(1 / delta))
    assert kr.bounds.operator_norm(L=L, P=P, K=K, n=n, **options) == pytest.approx(
        2 * sigma * math.sqrt(2 * K) * width / 30, rel=1e-9
    )
    rank, condition = 16, h**2  # eta is 1/4, the root of the condition h
    net = 1.25 * math.sqrt(2 * (c * log(9 * h * 4) + log(2 / delta)))
    rest = 1 + math.sqrt(2 * log(2 / delta)) / 4
    assert kr.bounds.fixed_design(
        c, n=n, rank=rank, condition=condition, **options
    ) == pytest.approx(2 * sigma * (net + rest) / 30, rel=1e-9)
    for spectral_ratio in (1, 4):
        finer = c * log(24 * h * math.sqrt(spectral_ratio))
        assert kr.bounds.design_size(
            c, confidence=1 - delta, spectral_ratio=spectral_ratio, factors=h
        ) == pytest.approx(32 * (finer + log(2 / delta)), rel=1e-9)


def test_neighbours():
    assert kr.bounds.convolutional_filter(filter_size=25) == 25
    assert kr.bounds.convolutional_filter(filter_size=25, outputs=16) == 41
    small, large = (kr.bounds.tensor_network_capacity(parameters=k, vertices=3) for k in (68, 92))
    assert small == pytest.approx(2 * 68 * math.log(36) / math.log(2))
    for vertices in (1, 3, 10, 1000):  # Warren: fewer than m points cannot be refused at this m
        m = kr.bounds.tensor_network_capacity(parameters=50, vertices=vertices)
        assert m > 50 * math.log2(4 * math.e * vertices * m / 50)
    assert large / small == pytest.approx(92 / 68)  # grows with K, where the dimension is flat


WRONG = [float("nan"), float("inf"), 0.0, -1.0]


@pytest.mark.parametrize(("name", "value"), [*itertools.product(("noise", "error"), WRONG)])
def test_numbers_that_are_not_positive_are_refused_by_name(name, value):
    arguments = {"noise": 1.0, "error": 0.1} | {name: value}
    with pytest.raises(ValueError, match=f"{name}={value}: finite numbers above 0"):
        kr.sample_size(5, **arguments)


BY_PLACE = {
    "ar1_spectral_bounds": 1,
    "design_size": 1,
    "error_bound": 1,
    "fixed_design": 1,
    "isometry": 1,
    "sample_size": 1,
    "var1_spectral_bounds": 2,
}
"""How many arguments may be given by place; none of the other functions."""


@pytest.mark.parametrize("name", [n for n in kr.bounds.__all__ if callable(getattr(kr.bounds, n))])
def test_numbers_that_could_be_mistaken_for_another_are_given_by_name(name):
    parameters = list(inspect.signature(getattr(kr.bounds, name)).parameters.values())
    count = BY_PLACE.get(name, 0)
    assert {p.kind for p in parameters[:count]} <= {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    assert {p.kind for p in parameters[count:]} <= {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("confidence", [0.0, 1.0, float("nan"), -0.5])
def test_a_confidence_outside_of_zero_and_one_is_refused(confidence):
    with pytest.raises(ValueError, match=f"confidence={confidence}: numbers between 0 and 1"):
        kr.error_bound(5, n=10, noise=1, confidence=confidence)


def test_other_refusals_name_what_was_given():
    with pytest.raises(ValueError, match="dimension=0"):
        kr.error_bound([4, 0], n=10, noise=1)
    with pytest.raises(ValueError, match="kind='guess'"):
        kr.sample_size(5, noise=1, error=1, kind="guess")
    with pytest.raises(ValueError, match=r"covariates=1\.0"):
        kr.bounds.law_factor(covariates=1, noise=0)
    with pytest.raises(ValueError, match=r"n=nan"):
        kr.error_bound(5, n=float("nan"), noise=1)
    with pytest.raises(ValueError, match=r"condition=0\.5: at least one = 1 is needed"):
        kr.bounds.fixed_design(4, n=50, noise=1, rank=9, condition=0.5)
    with pytest.raises(ValueError, match=r"base=1: at least"):
        kr.bounds.fixed_design(4, n=50, noise=1, rank=9, base=1)
    with pytest.raises(ValueError, match=r"spectral_ratio=0\.1: at least one = 1 is needed"):
        kr.bounds.design_size(4, spectral_ratio=0.1)
    with pytest.raises(ValueError, match="1 bonds for these modes: 2 are needed"):
        kr.bounds.frozen_tt(modes=(3, 4, 5), bonds=(2,))
    with pytest.raises(ValueError, match="1 ranks for these modes: 2 are needed"):
        kr.bounds.frozen_tucker(modes=(2, 3), ranks=(2,))
    with pytest.raises(ValueError, match="slack=100"):
        kr.bounds.var1_spectral_bounds(np.eye(1) * 0.9999, np.eye(1), slack=100)
    with pytest.raises(ValueError, match="equal squares needed"):
        kr.bounds.var1_spectral_bounds(np.zeros((0, 0)), np.zeros((0, 0)))
    with pytest.raises(ValueError, match="factors=-1"):
        kr.error_bound(5, n=10, noise=1, factors=-1)
    with pytest.raises(ValueError, match="transition holds NaN"):
        kr.bounds.var1_spectral_bounds(np.full((2, 2), np.nan), np.eye(2))
    with pytest.raises(ValueError, match="innovations are not symmetric"):
        kr.bounds.var1_spectral_bounds(np.zeros((2, 2)), 1e-9 * np.array([[2.0, 1.0], [0.0, 2.0]]))


def test_the_fixed_design_bound_holds_for_an_ill_conditioned_design():
    """Least squares over rank-1 matrices, condition number 100, truth zero and far from it."""
    L, P, n, noise, runs = 6, 4, 200, 1.0, 200
    sizes = torch.logspace(0, -2, L * P, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(L * P, L * P, generator=torch_stream(0, "turn")).double())[0]
    exponent = kr.counts.cnn(l=(L,), K=2, P=P).covering
    bound = kr.bounds.fixed_design(exponent, n=n, noise=noise, rank=L * P, condition=100)
    for truth in (torch.zeros(L, P, 1), torch.ones(L, P, 1)):
        draws = Draws.gaussian(
            (turn * sizes) @ turn.T,
            truth.double(),
            samples=n,
            noise=noise,
            draws=runs,
            modes=(L,),
            generator=torch_stream(1, "ill-conditioned"),
        )
        weights = kr.fit(draws, "matrix", 1, starts=4, exchanges=0).weight
        error = (weights - truth)[..., 0].flatten(1)
        rms = (error * (error @ draws.gram)).sum(1).sqrt()
        assert float((rms <= float(bound)).double().mean()) >= 0.95
        assert float(rms.mean()) > float(bound) / 20


def test_lengths_are_kept_relative_to_the_spectral_extremes_by_autoregressive_rows():
    """At the n of ``design_size`` no rank-1 matrix is longer or shorter than it says."""
    rho, L, P = 0.5, 3, 2
    low, high = kr.bounds.ar1_spectral_bounds(rho)
    exponent = kr.counts.cnn(l=(L,), K=2, P=P).covering
    n = math.ceil(float(kr.bounds.design_size(exponent, spectral_ratio=high / low)))
    generator = stream(0, "design size")
    for _ in range(20):
        drawn = generator.standard_normal((n, L * P))
        drawn[1:] *= math.sqrt(1 - rho**2)
        rows = signal.lfilter([1.0], [1.0, -rho], drawn, axis=0)
        lengths = np.linalg.svd(rows / math.sqrt(n), compute_uv=False)  # of all matrices
        assert lengths.min() > 0.57 * math.sqrt(low)
        assert lengths.max() < 1.43 * math.sqrt(high)
