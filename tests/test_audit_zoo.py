"""Published architectures, as scripts/record_zoo.py audited them."""

import importlib.util

import pandas as pd
import pytest

import krratio as kr
import record_zoo
from krratio.paths import DATA

RECORDED = pd.read_csv(DATA / "results/audit-zoo.csv").set_index("name")
BLOCKS = pd.read_csv(DATA / "results/audit-zoo-blocks.csv", keep_default_na=False)


def blocks_of(name: str) -> pd.DataFrame:
    return BLOCKS[BLOCKS["architecture"] == name]


def test_forty_architectures_are_recorded_and_every_operation_was_understood():
    assert RECORDED.index.tolist() == [name for _, _, name in record_zoo.entries()]
    assert len(RECORDED) == 40
    assert (RECORDED["not_understood"] == 0).all()


def test_recorded_counts_are_those_of_torchinfo():
    """Parameters exactly; multiply-adds up to the biases and normalizations that it counts."""
    assert (RECORDED["parameters"] == RECORDED["torchinfo_parameters"]).all()
    assert (RECORDED["macs"] + RECORDED["biases_and_norms"] == RECORDED["torchinfo_macs"]).all()


def test_recorded_counts_are_those_of_fvcore():
    """Its convolutions and linear layers, exactly; what else it counts is recorded apart."""
    assert (RECORDED["parameters"] == RECORDED["fvcore_parameters"]).all()
    assert (RECORDED["macs"] == RECORDED["fvcore_macs"]).all()
    assert (RECORDED["fvcore_other"] > 0).any()


def test_a_difference_without_explanation_would_be_named():
    frame = RECORDED.reset_index()
    assert not any(record_zoo.unexplained(frame).values())
    frame.loc[0, "fvcore_macs"] += 1
    assert record_zoo.unexplained(frame)["fvcore's multiply-adds"] == [frame.loc[0, "name"]]


def test_the_shares_of_all_classes_sum_to_one():
    shares = RECORDED[[column for column in RECORDED if column.startswith("share ")]]
    assert shares.shape[1] == 6
    assert ((shares.sum(axis=1) - 1).abs() < 1e-12).all()
    assert (shares >= 0).all(axis=None)


def test_the_table_of_blocks_is_that_of_the_networks():
    counted = BLOCKS.groupby("architecture").size().reindex(RECORDED.index, fill_value=0)
    assert (counted == RECORDED["blocks"]).all()
    wide = BLOCKS[BLOCKS["ratio"] > 1].groupby("architecture").size()
    assert (wide.reindex(RECORDED.index, fill_value=0) == RECORDED["K > R"]).all()
    assert (BLOCKS["ratio"] == BLOCKS["K"] / BLOCKS["R"]).all()
    assert ((BLOCKS["redundancy"] == "none") == (BLOCKS["ratio"] <= 1)).all()


@pytest.mark.parametrize(
    ("name", "blocks", "ratio"),
    [("resnet50", 16, 4), ("seresnet50", 16, 4), ("resnext50_32x4d", 16, 2), ("wrn50_2", 16, 2)],
)
def test_recorded_bottlenecks_have_one_ratio_and_are_redundant_in_their_branch(name, blocks, ratio):
    row = RECORDED.loc[name]
    assert (row["blocks"], row["K > R"]) == (blocks, blocks)
    assert row["ratio_low"] == row["ratio"] == row["ratio_high"] == ratio
    assert row["dominant"] == "branch only"
    assert set(blocks_of(name)["redundancy"]) == {"branch only"}
    assert row["share branch only"] > 0.7
    assert row["share exact"] == row["share approximate"] == 0


def test_resnet_50_has_its_published_widths():
    """He et al. 2016, table 1: stages of 3, 4, 6 and 3 blocks."""
    found = list(zip(blocks_of("resnet50")["K"], blocks_of("resnet50")["R"], strict=True))
    stages = ((256, 64, 3), (512, 128, 4), (1024, 256, 6), (2048, 512, 3))
    assert found == [(K, R) for K, R, times in stages for _ in range(times)]
    assert RECORDED.loc["resnet50", "parameters"] == 25_557_032


def test_mobilenet_v2_has_a_sixth_where_its_widths_agree():
    """Sandler et al. 2018, table 2: blocks that repeat a width expand it six times."""
    found = blocks_of("mobilenetv2_w1")
    inverted = found[found["kind"] == "inverted_residual_block"]
    before = [16, *inverted["K"][:-1]]
    alike = inverted["K"] == before
    assert alike.sum() == 10
    assert (inverted["R"] == [6 * C for C in before]).all()
    assert (inverted["ratio"][alike] == 1 / 6).all()
    assert RECORDED.loc["mobilenetv2_w1", "K > R"] == 0


def test_recorded_mobile_networks_have_their_known_ratios():
    assert RECORDED.loc["shufflenetv2_w1", "ratio"] == 1
    units = blocks_of("shufflenetv2_w1")
    units = units[units["kind"].isin(["depthwise_bottleneck_block", "inverted_residual_block"])]
    assert len(units) == 4 + 8 + 4
    assert (units["ratio"] == 1).all()
    assert RECORDED.loc["shufflenet_g3_w1", "ratio"] == 4
    assert set(RECORDED.loc["mobilenet_w1", ["ratio_low", "ratio_high"]]) == {1, 2}


def test_convnext_expands_four_times_with_an_activation_behind():
    row = RECORDED.loc["convnext_tiny"]
    assert (row["blocks"], row["ratio_low"], row["ratio_high"]) == (18, 4, 4)
    assert row["dominant"] == "approximate"
    left_out = 6_624 + 39_744  # layer scale; biases of the blocks
    assert row["parameters"] + left_out == 28_589_128  # as published with the code of the paper


def test_convnext_audits_as_recorded():
    found = kr.audit(record_zoo.build("here", "convnext_tiny"), (3, 224, 224))
    compare("convnext_tiny", found)


@pytest.mark.skipif(
    importlib.util.find_spec("pytorchcv") is None, reason="pytorchcv is not installed"
)
@pytest.mark.parametrize("name", ["resnet50", "mobilenetv3_large_w1", "ghostnet", "espnetv2_wd2"])
def test_architectures_audit_as_recorded(name):
    (module,) = (module for _, module, other in record_zoo.entries() if other == name)
    size = record_zoo.image_size(name)
    compare(name, kr.audit(record_zoo.build(module, name), (3, size, size)))


def compare(name: str, found: kr.Audit) -> None:
    now = record_zoo.summary_of(found)
    then = RECORDED.loc[name, list(now)].to_dict()
    assert {k: v for k, v in now.items() if k != "dominant" or v} == pytest.approx(
        {k: v for k, v in then.items() if k != "dominant" or now[k]}
    )
    blocks = record_zoo.block_rows(found)
    recorded = blocks_of(name)[record_zoo.BLOCK_COLUMNS].to_dict("records")
    assert blocks == recorded
