"""The named designs: their shapes, formats, counts, dimensions, K and R."""

import math

import pytest
import torch
from torch import nn

import krratio as kr
from krratio import blocks

KERNEL = (3, 3)
RELU = {"activation": nn.ReLU, "norm": True}


def build(**options):
    """Every design from 12 channels, with unequal sizes where it allows them."""
    return {
        "standard": blocks.standard(12, 7, KERNEL, **options),
        "tucker": blocks.tucker_bottleneck(12, 9, KERNEL, ranks=(5, 3), **options),
        "cp": blocks.cp_bottleneck(12, 9, KERNEL, R=4, **options),
        "tt": blocks.separable_chain(12, 9, (5, 3), ranks=(4,), **options),
        "separable": blocks.depthwise_separable(12, 18, KERNEL, **options),
        "inverted": blocks.inverted_residual(12, 12, KERNEL, **options),
        "resnet": blocks.resnet_bottleneck(12, KERNEL, R=3, **options),
        "resnext": blocks.resnext(12, KERNEL, R=6, groups=3, **options),
        "shuffle 1": blocks.shufflenet_v1(12, KERNEL, R=6, groups=3, **options),
        "shuffle 2": blocks.shufflenet_v2(12, KERNEL, **options),
        "fire": blocks.fire(12, 10, KERNEL, squeeze=3, **options),
        "convnext": blocks.convnext(12, (7, 7), **options),
    }


CHANNELS = {"standard": 7, "tucker": 9, "cp": 9, "tt": 9, "separable": 18, "fire": 10}


@pytest.mark.parametrize("name", list(build()))
@pytest.mark.parametrize("options", [{}, RELU])
def test_every_design_keeps_the_grid_and_puts_out_its_channels(name, options):
    x = torch.randn(2, 12, 8, 8)
    assert build(**options)[name](x).shape == (2, CHANNELS.get(name, 12), 8, 8)


@pytest.mark.parametrize("name", list(build()))
def test_without_activation_every_design_is_linear(name):
    block = build()[name]
    x, y = torch.randn(1, 12, 8, 8), torch.randn(1, 12, 8, 8)
    torch.testing.assert_close(block(2 * x + y), 2 * block(x) + block(y), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("modes", [1, 2, 3])
def test_the_kernel_says_how_many_spatial_modes_there_are(modes):
    block = blocks.tucker_bottleneck(4, 6, (3,) * modes, ranks=(2, 3), **RELU)
    assert block(torch.randn(2, 4, *[5] * modes)).shape == (2, 6, *[5] * modes)


RATIOS = {
    "tucker": ("bottleneck_block", 3, "approximate"),
    "cp": ("depthwise_bottleneck_block", 9 / 4, "approximate"),
    "separable": ("depthwise_separable_block", 1.5, "approximate"),
    "inverted": ("inverted_residual_block", 1 / 6, "none"),
    "resnet": ("bottleneck_block", 4, "branch only"),
    "resnext": ("grouped_bottleneck_block", 2, "branch only"),
    "shuffle 1": ("depthwise_bottleneck_block", 2, "branch only"),
    "shuffle 2": ("depthwise_bottleneck_block", 1, "none"),
    "convnext": ("depthwise_separable_block", 4, "approximate"),
}


@pytest.mark.parametrize("name", list(build()))
def test_the_audit_reads_k_over_r_off_every_design(name):
    frame = kr.audit(nn.Sequential(build(**RELU)[name], nn.ReLU()), (12, 8, 8)).to_frame()
    found = frame[frame["level"] == "block"]
    if name not in RATIOS:  # no pointwise layer behind a spatial one on a path of its own
        assert found.empty
        return
    (row,) = found.itertuples()
    assert (row.kind, row.ratio, row.redundancy) == RATIOS[name]


def network(block, K):
    """The block without padding effects: pooling to one place, then a linear layer."""
    return nn.Sequential(block, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(4 * K, 3, bias=False))


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        ("standard", kr.counts.cnn(l=(12, 9), K=7, P=12)),
        ("tucker", kr.counts.tucker(l=(12, 3, 3), R_j=(5, None, None), R=3, K=9, P=12)),
        ("cp", kr.counts.cp(l=(12, 9), R=4, K=9, P=12)),
    ],
)
def test_counts_of_the_linear_designs_are_those_of_their_formats(name, counted):
    with torch.device("meta"):
        found = kr.count(network(build()[name], CHANNELS[name]), (12, 8, 8))
    assert (found.naive, found.covering) == (counted.naive, counted.covering)


def test_the_dimension_is_flat_in_the_channels_of_a_linear_bottleneck_and_grows_with_a_skip():
    def dimension(block, K):
        model = nn.Sequential(block, nn.AvgPool1d(3), nn.Flatten(), nn.Linear(3 * K, 1, bias=False))
        return int(kr.intrinsic_dimension(model, (block_channels(block), 9)))

    def block_channels(block):
        return next(p.shape[1] for p in block.parameters())

    flat = [dimension(blocks.tucker_bottleneck(4, K, (3,), ranks=(2, 2)), K) for K in (2, 4, 8)]
    skips = [dimension(blocks.resnet_bottleneck(C, (3,), R=2), C) for C in (3, 4)]
    assert len(set(flat)) == 1
    assert skips[0] < skips[1]


def test_a_shuffle_moves_channels_between_groups():
    x = torch.arange(6.0).reshape(1, 6, 1)
    assert blocks.Shuffle(2)(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: blocks.standard(0, 3, KERNEL), "C=0: an integer of at least 1"),
        (lambda: blocks.standard(4.0, 3, KERNEL), r"C=4\.0: an integer of at least 1"),
        (lambda: blocks.standard(4, True, KERNEL), "K=True: an integer"),
        (lambda: blocks.standard(4, 3, 3), "kernel=3: a tuple of one to three odd sizes"),
        (lambda: blocks.standard(4, 3, (3, 0)), r"kernel=\(3, 0\): an integer of at least 1"),
        (lambda: blocks.standard(4, 3, ()), r"kernel=\(\): a tuple of one to three"),
        (lambda: blocks.tucker_bottleneck(4, 3, KERNEL, ranks=(2, 0)), r"ranks\[1\]=0: an integer"),
        (lambda: blocks.tucker_bottleneck(4, 3, KERNEL, ranks=(2,)), r"ranks=\(2,\): two"),
        (lambda: blocks.cp_bottleneck(4, 3, KERNEL, R="2"), "R='2': an integer"),
        (lambda: blocks.separable_chain(2, 3, KERNEL, ranks=(0,)), r"ranks\[0\]=0: an integer"),
        (lambda: blocks.depthwise_separable(-1, 3, KERNEL), "C=-1: an integer"),
        (lambda: blocks.inverted_residual(4, 4, KERNEL, expansion=0.5), r"expansion=0\.5: an int"),
        (lambda: blocks.convnext(4, KERNEL, expansion=0), "expansion=0: an integer"),
        (lambda: blocks.resnext(8, KERNEL, R=6, groups=0), "groups=0: an integer of at least 1"),
        (lambda: blocks.shufflenet_v1(8, KERNEL, R=6, groups=0), "groups=0: an integer"),
        (lambda: blocks.shufflenet_v2(0, KERNEL), "C=0: an integer"),
        (lambda: blocks.fire(4, 6, KERNEL, squeeze=0), "squeeze=0: an integer of at least 1"),
        (lambda: blocks.standard(2, 3, (2, 2)), r"kernel=\(2, 2\): one to three odd sizes"),
        (lambda: blocks.resnext(8, KERNEL, R=6, groups=4), "groups=4 divides not both 6 and 6"),
        (
            lambda: blocks.separable_chain(2, 3, KERNEL, ranks=(2, 2)),
            r"ranks=\(2, 2\): 1 are needed",
        ),
        (lambda: blocks.shufflenet_v2(5, KERNEL), "C=5: an even number"),
        (lambda: blocks.fire(4, 5, KERNEL, squeeze=2), "K=5: an even number"),
    ],
)
def test_what_no_design_can_have_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_parameters_of_a_bottleneck_by_hand():
    block = blocks.resnet_bottleneck(256, KERNEL, R=64, **RELU)
    expected = 256 * 64 + 64 * 64 * 9 + 64 * 256 + 2 * (64 + 64 + 256)
    assert sum(math.prod(p.shape) for p in block.parameters()) == expected
