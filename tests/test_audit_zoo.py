"""Published architectures, as scripts/record_zoo.py audited them."""

import pandas as pd
import pytest

import krratio as kr
import record_zoo
from krratio.paths import DATA

# Published architectures, recorded by scripts/record_zoo.py


RECORDED = pd.read_csv(DATA / "results/audit-zoo.csv").set_index("name")


def test_recorded_counts_are_those_of_torchinfo():
    """Parameters exactly; multiply-adds up to the biases and normalizations that it counts."""
    assert len(RECORDED) >= 25
    assert (RECORDED["parameters"] == RECORDED["torchinfo_parameters"]).all()
    assert (RECORDED["macs"] + RECORDED["biases_and_norms"] == RECORDED["torchinfo_macs"]).all()
    assert (RECORDED["not_understood"] == 0).all()


@pytest.mark.parametrize(
    ("name", "blocks", "ratio"),
    [("resnet50", 16, 4), ("seresnet50", 16, 4), ("resnext50_32x4d", 16, 2)],
)
def test_recorded_bottlenecks_have_one_ratio_and_are_redundant_in_their_branch(name, blocks, ratio):
    row = RECORDED.loc[name]
    assert (row["blocks"], row["K > R"]) == (blocks, blocks)
    assert row["ratio_low"] == row["ratio"] == row["ratio_high"] == ratio
    assert row["share branch only"] > 0.7
    assert row["share exact"] == row["share approximate"] == 0


def test_recorded_mobile_networks_have_their_known_ratios():
    assert RECORDED.loc["mobilenetv2_w1", "ratio"] == pytest.approx(1 / 6)
    assert RECORDED.loc["shufflenetv2_w1", "ratio"] == 1
    assert RECORDED.loc["shufflenet_g3_w1", "ratio"] == 4
    assert set(RECORDED.loc["mobilenet_w1", ["ratio_low", "ratio_high"]]) == {1, 2}
