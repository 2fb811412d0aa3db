"""The law of least squares: its parts against brute force, and the experiments on small sizes."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

import krratio as kr
from krratio.experiments.bound_check import KINDS, bounds_against_samples, coverage
from krratio.experiments.dependent_data import dependence
from krratio.experiments.intervals import mean_interval
from krratio.experiments.law import equivalence, experiment, measure_law, same_data, tangent_part
from krratio.experiments.law_cases import expanded, law_cases, true_weight, with_truth
from krratio.experiments.onset import onset, random_designs, rates
from krratio.experiments.seeds import torch_stream
from krratio.experiments.tangent_cone import cone_dimension, singular_truths

CASES = law_cases()


def named(family, ratio=1, place=0):
    return [c for c in CASES if (c.family, c.ratio) == (family, ratio)][place]


def normal(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def test_the_cases_are_as_many_and_as_various_as_the_chapter_says():
    assert len(CASES) == 33
    assert {case.ratio for case in CASES} == {1, 2, 4, 8}
    assert len({(c.family, c.name, c.ratio) for c in CASES}) == len(CASES)
    dimensions = [int(kr.intrinsic_dimension(c.network, c.input_shape)) for c in CASES]
    assert (min(dimensions), max(dimensions)) == (8, 44)


@pytest.mark.parametrize("family", ["Tucker", "CP", "deep"])
def test_the_dimension_of_a_case_does_not_depend_on_its_expansion(family):
    wide = [c for c in CASES if c.family == family and c.ratio == 8]
    for case in wide:
        (narrow,) = (c for c in CASES if (c.family, c.name, c.ratio) == (family, case.name, 1))
        sizes = [int(kr.intrinsic_dimension(c.network, c.input_shape)) for c in (narrow, case)]
        assert sizes[0] == sizes[1]


def test_truths_have_outputs_of_variance_one_and_are_keyed_by_the_case():
    case = named("CNN", place=4)  # two outputs
    network = with_truth(case, seed=1)
    assert float(true_weight(network, case).norm()) == pytest.approx(math.sqrt(2))
    again = with_truth(case, seed=1)
    other = with_truth(case, seed=2)
    pairs = zip(network.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(true_weight(network, case), true_weight(other, case))


@pytest.mark.parametrize(("family", "place"), [("Tucker", 0), ("CP", 1), ("deep", 3)])
def test_an_expanded_network_is_the_same_function(family, place):
    case = named(family, place=place)
    network = with_truth(case, seed=3)
    wide = expanded(network, 7, seed=4)
    x = normal(0, 5, *case.input_shape)
    torch.testing.assert_close(wide(x), network(x), rtol=1e-10, atol=1e-11)
    assert any(m.out_channels == 7 for m in wide if isinstance(m, nn.Conv1d | nn.Conv2d))


def test_the_tangent_part_is_the_projection_of_the_noise():
    n, D, T, N = 40, 6, 2, 5
    X, noise, jacobian = normal(0, n, D), normal(1, 3, n, T), normal(2, T * D, N)
    jacobian = torch.cat([jacobian, jacobian[:, :1]], 1)  # one gauge direction
    tangents = torch.stack([X @ column.reshape(T, D).T for column in jacobian.T])
    basis = torch.linalg.qr(tangents.flatten(1).T[:, :N])[0]
    expected = (noise.flatten(1) @ basis).square().sum(1) / n
    noises = torch.einsum("nd,mnt->mdt", X, noise) / n
    found = tangent_part(X.T @ X / n, jacobian, noises, N)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_the_control_variate_is_chi_squared_with_the_dimension():
    case = named("CP", ratio=2)
    found = experiment(case, dimension=16, samples=200, noise=0.3, replicates=1500, seed=5)
    assert found.dimension == 16
    statistic = stats.kstest(found.tangent.numpy(), stats.chi2(16).cdf)
    assert statistic.pvalue > 1e-3
    zero = torch.zeros(2, *found.weight.shape, dtype=torch.float64)
    expected = float((found.weight[:, 0].T @ found.draws.gram @ found.weight[:, 0]).squeeze())
    assert float(found.risks(zero)[1]) == pytest.approx(expected * 200 / 0.09)


def test_the_law_holds_and_the_naive_count_does_not():
    frame = measure_law(
        [named("Tucker", ratio=4), named("CNN")],
        work=600,
        noise=0.02,
        samples_per_dimension=50,
        seed=1,
    )
    assert ((frame["controlled"] - 1).abs() < 0.01).all()
    assert (frame["ratio_low"] < frame["ratio"]).all()
    assert (frame["controlled_high"] - frame["controlled"] < 0.01).all()
    assert frame["parameters"].tolist() == [60, 9]
    assert frame["dimension"].tolist() == [18, 8]
    assert (frame["replicates"] == [34, 75]).all()


def test_networks_with_more_channels_fit_the_same_function_to_the_same_data():
    options = {"replicates": 5, "noise": 0.02, "samples_per_dimension": 50, "seed": 2}
    frame = same_data([named("CP")], ratios=(2, 4), **options)
    assert (frame["difference"] < 1e-8).all()
    assert (frame["converged"] == 1).all()
    assert frame["parameters"].tolist() == [34, 54]


def test_equivalence_is_refused_where_means_differ_or_are_not_known_well_enough():
    row = {"family": "f", "name": "n", "controlled": 1.0}
    base = row | {"K/R": 1, "controlled_low": 0.998, "controlled_high": 1.002}
    same = row | {"K/R": 2, "controlled_low": 0.998, "controlled_high": 1.002}
    far = base | {"K/R": 4, "controlled": 1.03}
    vague = row | {"K/R": 8, "controlled_low": 0.9, "controlled_high": 1.1}
    found = equivalence(pd.DataFrame([base, same, far, vague]), margin=0.02)
    assert (found["p"] < 0.05).tolist() == [True, False, False]
    assert found["difference"].round(3).tolist() == [0, 0.03, 0]
    with pytest.raises(ValueError, match=r"f: n has K/R = \[2, 4\]; a row with K/R = 1 is needed"):
        equivalence(pd.DataFrame([same, far]), margin=0.02)


def test_out_of_the_sample_a_linear_class_has_the_inverse_wishart_factor():
    weight, n, d = torch.zeros(5, 1, 1, dtype=torch.float64), 12, 5
    draws = random_designs(
        weight, samples=n, noise=2.0, draws=4000, modes=(5,), generator=torch_stream(0, "w")
    )
    solved = torch.linalg.solve(draws.gram, draws.cross)
    risks = solved.square().sum((1, 2)) / 4
    mean = mean_interval("risk", risks, level=0.999)
    assert mean["risk_low"] < d / (n - d - 1) < mean["risk_high"]
    inside = (solved * (draws.gram @ solved)).sum((1, 2)) * n / 4
    mean = mean_interval("risk", inside, level=0.999)
    assert mean["risk_low"] < d < mean["risk_high"]


def test_the_onset_reports_what_it_was_asked():
    frame = onset([named("CNN")], multiples=(2, 30), replicates=60, noise=0.02, seed=1)
    assert frame["n"].tolist() == [16, 240]
    assert frame["linear"].tolist() == [16 / 7, 240 / 231]
    assert (frame["in_sample"] - 1).abs().max() < 0.25
    assert frame["out_of_sample"].iloc[0] > 1.5 * frame["out_of_sample"].iloc[1]
    assert (frame["converged"] == 1).all()


def test_a_search_beside_the_onset_finds_lower_minima_that_err_more():
    options = {"replicates": 30, "noise": 0.3, "seed": 1, "searches": 20, "starts": 4}
    near, far = (
        onset([named("CP")], multiples=(multiple,), **options).iloc[0] for multiple in (1.25, 8)
    )
    assert 0.2 < near["lower"] <= 1
    assert near["searched"] > near["next_to_truth"]
    assert near["searched_low"] < near["searched"] < near["searched_high"]
    assert "lower" not in far  # beyond 3 d nothing is searched


def test_two_outputs_share_the_dimensions_out_of_the_sample():
    (case,) = (c for c in law_cases() if c.name.endswith("T=2") and c.family == "CNN")
    frame = onset([case], multiples=(2,), replicates=150, noise=0.05, seed=1)
    row = frame.iloc[0]
    assert row["linear"] == row["n"] / (row["n"] - row["dimension"] / 2 - 1)
    assert abs(row["out_of_sample"] / row["linear"] - 1) < 0.12


def test_rates_are_read_off_exact_lines():
    n = np.array([4.0, 8.0, 16.0])
    part = pd.DataFrame({"n/d": n, "log_rmse": 0.25 - 0.5 * np.log(n), "log_rmse_error": 0.01})
    found = rates(pd.concat([part.assign(name="a"), part.assign(name="b", log_rmse=0.0)]))
    assert found["slope"].to_numpy() == pytest.approx([-0.5, 0.0], abs=1e-12)
    assert found["at_d"].to_numpy() == pytest.approx([0.25, 0.0], abs=1e-12)
    half = (found["slope_high"] - found["slope"]).iloc[0]
    assert half == pytest.approx(1.96 * 0.01 / np.log(n).std() / math.sqrt(3), rel=1e-3)


def test_the_cone_of_all_matrices_is_everything_and_of_a_smooth_point_the_tangent_space():
    full, _ = cone_dimension(L=5, P=3, K=3, rank=0, members=4000, seed=1)
    assert full == pytest.approx(15, rel=0.02)
    assert cone_dimension(L=5, P=3, K=2, rank=2, seed=1) == (12.0, 0.0)
    with pytest.raises(ValueError, match="members=1"):
        cone_dimension(L=5, P=3, K=2, rank=1, seed=1, members=1)
    with pytest.raises(ValueError, match="rank=3, K=2"):
        cone_dimension(L=5, P=3, K=2, rank=3, seed=1)
    # One column: the largest singular value of a Gaussian vector squared is its length squared.
    column, error = cone_dimension(L=7, P=1, K=1, rank=0, members=4000, seed=1)
    assert column == pytest.approx(7, abs=5 * error)


def test_errors_at_singular_truths_follow_the_cone_and_at_smooth_ones_the_dimension():
    frame = singular_truths(L=6, P=4, K=2, replicates=1500, noise=1e-3, seed=1)
    assert frame["rank"].tolist() == [2, 1, 0]
    slack = 4 * (frame["measured_high"] - frame["measured"]) / 1.96
    assert ((frame["measured"] - frame["predicted"]).abs() < slack).all()
    assert frame["predicted"].iloc[0] == 16
    assert frame["predicted"].is_monotonic_increasing


def test_bounds_enclose_what_is_measured():
    options = {"L": 6, "P": 4, "noise": 0.3, "confidence": 0.9, "replicates": 300, "seed": 1}
    frame = bounds_against_samples(K=1, samples=(100, 400), **options)
    assert set(frame["kind"]) == set(KINDS)
    table = frame.pivot_table("error", "n", "kind")
    assert (table["frozen"] < table["rmse"]).all()
    for upper in ("operator", "fixed", "isometry"):
        assert (table["quantile"] < table[upper]).all()
    assert np.allclose(table.loc[100] / table.loc[400], 2, rtol=0.05)
    covered = coverage(ranks=(1, 2), samples=400, **options)
    assert (covered[["operator", "fixed", "isometry"]] >= 0.9).all(axis=None)
    zero = covered[(covered["truth"] == "zero") & (covered["K"] == 1)]
    assert zero["law"].item() < 0.7  # the law is no bound at singular truths


def test_dependence_multiplies_the_law_only_if_both_depend():
    frame = dependence(
        named("CNN"),
        coefficients=[(0.8, 0.0), (0.8, 0.8)],
        samples=1500,
        replicates=300,
        noise=0.02,
        seed=1,
    )
    assert frame["predicted"].tolist() == pytest.approx([1, 1.64 / 0.36])
    assert ((frame["measured"] / frame["predicted"] - 1).abs() < 0.2).all()
    assert ((frame["measured"] / frame["linear"] - 1).abs() < 0.05).all()
    assert (frame["measured_low"] < frame["measured"]).all()


def test_an_interval_has_its_level():
    values = normal(1, 4000, 8)
    inside = [
        (found := mean_interval("x", row, student=True))["x_low"] < 0 < found["x_high"]
        for row in values
    ]
    low, high = stats.binomtest(sum(inside), 4000).proportion_ci(0.999)
    assert low < 0.95 < high
