"""Block designs: dimensions by formula are the exact ones, and pictures show what is computed."""

import re

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

import krratio as kr
from audit_models import Inverted
from krratio.auditing.designs import zoo
from krratio.auditing.designs.diagram import channel_diagram, channel_figure, channel_lines
from krratio.auditing.designs.measure import measure
from krratio.auditing.designs.sketch import glyphs, lanes
from krratio.auditing.designs.zoo import SIZES, at_ratio, designs, linear_network
from krratio.auditing.structure.flow import Flow
from krratio.auditing.walking.walk import walk
from krratio.errors import FigureError

NAMES = [design.name for design in designs()]


def named(name, width=1):
    return next(design for design in designs(width) if design.name == name)


@pytest.mark.parametrize("name", ["MobileNet V2", "ResNeXt", "ShuffleNet V1", "SqueezeNet"])
def test_the_formula_of_a_design_is_its_exact_dimension_with_another_seed_too(name):
    design = named(name)
    net = linear_network(design)
    assert kr.intrinsic_dimension(net, (design.C, *SIZES), seed=7).value == design.dimension


SIZED = [
    (zoo._resnet, (6, 6)),
    (zoo._resnet, (9, 2)),
    (zoo._resnext, (6, 4, 2)),
    (zoo._shufflenet_v1, (8, 6, 2)),  # groups that do not divide R/g
    (zoo._shufflenet_v1, (8, 4, 4)),
    (zoo._shufflenet_v1, (12, 12, 3)),
    (zoo._squeezenet, (6, 2, 4)),  # K/2 = s, the least that is allowed
    (zoo._squeezenet, (6, 1, 30)),  # K/2 > s(l - 1)
    (zoo._convnext, (5, 2)),
    (zoo._mobilenet_v1, (5, 3)),
    (zoo._mobilenet_v1, (3, 60)),  # K > P
    (zoo._mobilenet_v2, (3, 2)),  # an unbalanced CP format
    (zoo._mobilenet_v2, (2, 5)),
    (zoo._shufflenet_v2, (6,)),
    (zoo._separable, (3, 12, 50)),
]


@pytest.mark.parametrize(("make", "sizes"), SIZED)
def test_the_formula_holds_at_other_sizes(make, sizes):
    design = make(*sizes)
    net = linear_network(design)
    assert kr.intrinsic_dimension(net, (design.C, *SIZES), seed=5).value == design.dimension


@pytest.mark.parametrize(
    ("make", "sizes", "message"),
    [
        (zoo._resnet, (4, 6), "ResNet: R=6, C=4, P=40; the formula needs R <= C <= P"),
        (zoo._resnet, (48, 6), "ResNet: R=6, C=48, P=40"),
        (zoo._resnext, (4, 8, 2), "ResNeXt: R=8"),
        (zoo._shufflenet_v1, (48, 4, 2), "ShuffleNet V1: C=48"),
        (zoo._squeezenet, (8, 4, 6), "SqueezeNet: squeeze=4, half=3"),
        (zoo._squeezenet, (4, 6, 20), "SqueezeNet: squeeze=6, C=4"),
        (zoo._convnext, (41, 2), "ConvNeXt: C=41"),
        (zoo._mobilenet_v2, (41, 2), "MobileNet V2: C=41"),
    ],
)
def test_sizes_outside_of_the_formula_are_refused(make, sizes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(*sizes)


@pytest.mark.parametrize("ratio", [0.5, 2])
def test_formulas_hold_along_the_ratio(ratio):
    frame = measure(at_ratio(ratio), seed=3)
    assert (frame["predicted"] == frame["exact"]).all()
    free = frame[frame["design"] != "MobileNet V2"]
    assert (free["ratio"] == ratio).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [1, 2])
def test_a_design_keeps_the_grid_and_its_ratio_at_every_width(name, width):
    design = named(name, width)
    block = design.block(nn.ReLU, norm=True).to("meta")
    out = block(torch.empty(2, design.C, *SIZES, device="meta"))
    assert out.shape == (2, design.K, *SIZES)
    frames = [
        kr.audit(named(name, w).block(nn.ReLU).to("meta"), (named(name, w).C, *SIZES)).to_frame()
        for w in (1, width)
    ]
    ratios = [frame[frame["level"] == "block"]["ratio"].tolist() for frame in frames]
    assert ratios[0] == ratios[1]


def drawn(block, shape):
    found = glyphs(Flow(walk(block, [shape])))
    return [(g.kind, g.text) for g in found], found


def test_a_bottleneck_is_drawn_layer_by_layer_with_its_skip():
    block = kr.blocks.resnet_bottleneck(16, (3, 5), R=4, activation=nn.ReLU, norm=True)
    kinds, found = drawn(block, (16, 8, 8))
    unit = [("norm", "N"), ("activation", "σ")]
    expected = [("input", ""), ("layer", "1×1"), *unit, ("layer", "3×5"), *unit, ("layer", "1×1")]
    assert kinds == [*expected, ("norm", "N"), ("join", "+"), ("activation", "σ")]
    assert [g.channels for g in found if g.kind == "layer"] == [4, 4, 16]
    assert sorted(found[-2].sources) == [0, len(found) - 3]
    assert set(lanes(found)) == {0}


def test_a_split_and_a_shuffle_carry_the_right_channels():
    frame = channel_lines({"V2": (kr.blocks.shufflenet_v2(16, (3, 3)), (16, 8, 8))})
    assert frame["channels"].tolist().count(16) == 3  # in, before the shuffle, behind it
    kinds, found = drawn(kr.blocks.shufflenet_v1(12, (3,), R=6, groups=3), (12, 9))
    assert ("shuffle", "") in kinds
    assert [g.channels for g in found if g.kind == "shuffle"] == [6]
    assert [g.groups for g in found if g.kind == "layer"] == [3, 6, 3]


def test_the_halves_of_a_fire_module_lie_in_two_lanes():
    _, found = drawn(kr.blocks.fire(16, 16, (3, 3), squeeze=2), (16, 8, 8))
    layers = [i for i, g in enumerate(found) if g.kind == "layer"]
    assert sorted(lanes(found)[i] for i in layers) == [0, 0, 1]


def test_a_gate_is_a_product():
    assert ("join", "×") in drawn(Inverted(), (8, 8, 8))[0]


def test_a_picture_holds_every_layer_and_every_number():
    block = kr.blocks.tucker_bottleneck(7, 5, (3, 3), ranks=(2, 3)).to("meta")
    axis = channel_diagram(block, (7, 6, 6))
    texts = [text.get_text() for text in axis.texts]
    assert texts.count("1×1") == 2
    assert {"7", "2", "3", "5", "3×3"} <= set(texts)
    plt.close(axis.figure)


def test_several_pictures_have_one_scale():
    blocks = {d.name: (d.block().to("meta"), (d.C, *SIZES)) for d in designs()[:3]}
    figure = channel_figure(blocks)
    widths = [axis.get_xlim() for axis in figure.axes[:3]]
    spans = [right - left for left, right in widths]
    assert max(spans) - min(spans) < 1e-9
    plt.close(figure)


def test_a_whole_network_is_refused():
    deep = nn.Sequential(*[nn.Conv1d(2, 2, 1) for _ in range(70)])
    with pytest.raises(FigureError, match="71 glyphs, of 60"):
        channel_diagram(deep, (2, 5))


@pytest.mark.parametrize(
    ("block", "C"),
    [
        *((kr.blocks.cp_bottleneck(3, 4, (3,), R=R), 3) for R in (2, 4, 5, 6, 7)),
        *((kr.blocks.tucker_bottleneck(3, 7, (2 + 1,), ranks=r), 3) for r in ((3, 7), (3, 6))),
        *((kr.blocks.tucker_bottleneck(2, 9, (3,), ranks=r), 2) for r in ((2, 6), (2, 5), (1, 6))),
        (kr.blocks.depthwise_separable(3, 3, (3,)), 3),
    ],
)
def test_a_block_is_saturated_when_its_exact_dimension_is_that_of_all_kernels(block, C):
    last = [layer for layer in block.modules() if isinstance(layer, nn.Conv1d)][-1]
    K = last.out_channels
    dimension = kr.intrinsic_dimension(block.to("meta"), (C, 5)).value
    frame = kr.audit(nn.Sequential(block, nn.Conv1d(K, 2, 1)).to("meta"), (C, 5)).to_frame()
    row = frame[frame["level"] == "block"].iloc[0]
    assert ("saturated" in row["also"]) == (dimension == 3 * C * K)


def test_an_inverted_residual_is_saturated_at_the_published_expansion():
    shares = {}
    for t in (2, 6):
        block = kr.blocks.inverted_residual(24, 24, (3, 3), expansion=t, activation=nn.ReLU6)
        shares[t] = kr.audit(nn.Sequential(block, block).to("meta"), (24, 7, 7)).also
    assert "saturated" not in shares[2]
    assert shares[6]["saturated"] == 1.0
