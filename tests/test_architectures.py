"""Formulas, laws and tables against exact ranks, on every architecture of the list."""

import pytest
from torch import nn

import krratio as kr
from krratio.experiments.architectures import architectures, compare
from krratio.experiments.canonical_search import search, small_formats
from krratio.experiments.small_primes import lost_ranks


@pytest.fixture(scope="module")
def table():
    return compare(architectures(), seed=1)


def test_every_architecture_has_the_predicted_dimension(table):
    assert len(table) >= 300
    wrong = table[table["exact"] != table["predicted"]]
    assert wrong.empty, wrong.to_string()


def test_every_difference_to_the_formula_has_a_name(table):
    different = table[table["exact"] != table["expected"]]
    assert set(different["reason"]) == {"ambient", "overlap", "defect"}
    assert (different["exact"] < different["expected"]).all()


def test_what_is_called_a_theorem_is_met_by_both_bounds(table):
    proved = table[table["theorem"]]
    assert len(proved) > 300
    assert (proved["exact"] == proved["upper"]).all()
    assert not table.loc[table["reason"] == "defect", "theorem"].any()


def test_the_overlap_law_for_two_channels_is_the_published_product():
    for l, p, step in (((6, 4), (2, 2), (2, 1)), ((3, 4), (3, 2), (2, 3)), ((9,), (3,), (2,))):
        room = [max(0, n - (m - 1) * s) for n, m, s in zip(l, p, step, strict=True)]
        product = 1
        for value in room:
            product *= value
        assert kr.counts.syzygies(l, p, step, 2, 1) == product


def test_features_that_are_the_same_are_counted_once():
    assert kr.counts.distinct_features((5,), (3,), (2,)) == 9
    assert kr.counts.distinct_features((2, 3), (3, 2), (5, 1)) == 6 * 4


def test_the_search_agrees_with_the_table_of_defects():
    found = search(small_formats({3: 4, 4: 3}), seed=2)
    assert (found["exact"] == found["tabulated"]).all()
    defective = found[found["exact"] < found["expected"]]
    assert set(defective["format"]) == {"2x2x4", "3x3x3", "3x4x4", "2x2x2x2", "2x2x3x3"}


def test_small_primes_lose_rank_and_large_ones_do_not():
    net = nn.Sequential(nn.Conv1d(2, 2, 2, stride=2, bias=False), nn.Flatten(), nn.Linear(4, 2))
    lost = lost_ranks(net, (2, 4), [3, 10007], draws=60, seed=0).set_index("prime")
    assert lost.loc[3, "share"] > 0.2
    assert lost.loc[10007, "share"] == 0
    assert (lost["share"] <= lost["bound"]).all()
