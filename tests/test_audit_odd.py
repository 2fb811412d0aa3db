"""The audit on networks that it was not written for, against numbers by hand."""

import pytest
import torch

import krratio as kr
from odd_models import (
    Efficient,
    Experts,
    Generator,
    Language,
    Siamese,
    Speech,
    UNet,
    Video,
    Wave,
)

TOKENS = torch.zeros(1, 12, dtype=torch.long)
LINEAR = ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose2d")

# Network, input, multiply-adds of every layer by hand: places x weights.
CASES = [
    (
        UNet(),
        (3, 16, 16),
        {
            "down.0.0": 256 * 3 * 8 * 9,
            "down.0.2": 256 * 8 * 8 * 9,
            "down.1.0": 64 * 8 * 16 * 9,
            "down.1.2": 64 * 16 * 16 * 9,
            "bottom.0": 16 * 16 * 32 * 9,
            "bottom.2": 16 * 32 * 32 * 9,
            "up.0": 16 * 32 * 16 * 4,  # places of what goes in
            "joined.0.0": 64 * 32 * 16 * 9,
            "joined.0.2": 64 * 16 * 16 * 9,
            "up.1": 64 * 16 * 8 * 4,
            "joined.1.0": 256 * 16 * 8 * 9,
            "joined.1.2": 256 * 8 * 8 * 9,
            "head": 256 * 8 * 2,
        },
    ),
    (
        Generator(),
        (10,),
        {"start": 10 * 512, "up": 16 * 32 * 12 * 16, "last": 64 * 12 * 3 * 16},
    ),
    (
        Video(),
        (3, 4, 8, 8),
        {
            "stem": 4 * 16 * 3 * 6 * 49,
            "space": 4 * 16 * 6 * 13 * 9,
            "time": 4 * 16 * 13 * 6 * 3,
            "head": 6 * 5,
        },
    ),
    (
        Speech(),
        (8, 20),
        {
            "conv": 10 * 8 * 12 * 5,
            "rnn": 10 * 2 * 3 * 7 * ((12 + 7) + (14 + 7)),  # steps, directions, gates, both depths
            "head": 10 * 14 * 11,
        },
    ),
    (
        Experts(),
        (4, 6, 6),
        {"router": 4 * 3, "weight": 36 * 4 * 30 * 9, "mix": 36 * 10 * 5},
    ),
    (
        Efficient(),
        (6, 8, 8),
        {
            "widen": 64 * 6 * 24,
            "spatial": 64 * 24 * 25,
            "squeeze": 24 * 2,
            "excite": 2 * 24,
            "narrow": 64 * 24 * 6,
        },
    ),
]


def layers_of(found):
    frame = found.to_frame()
    return frame[frame["level"] == "layer"]


def blocks_of(found):
    frame = found.to_frame()
    return frame[frame["level"] == "block"].to_dict("records")


@pytest.mark.parametrize(("model", "shape", "macs"), CASES, ids=lambda v: type(v).__name__)
def test_every_layer_has_its_multiply_adds_and_the_order_of_the_forward(model, shape, macs):
    found = kr.audit(model, shape)
    layers = layers_of(found)
    assert layers["name"].tolist() == list(macs)
    assert dict(zip(layers["name"], layers["macs"], strict=True)) == macs
    assert found.macs == sum(macs.values())
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.not_understood == ()


@pytest.mark.parametrize("model", [UNet(), Generator(), Video(), Experts(), Efficient()])
def test_multiply_adds_are_those_of_torchs_own_counter(model):
    from torch.utils.flop_counter import FlopCounterMode

    shape = next(shape for other, shape, _ in CASES if type(other) is type(model))
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, *shape))
    assert 2 * kr.audit(model, shape).macs == counter.get_total_flops()


def test_a_unet_has_one_block_and_its_upsampling_runs_into_the_joined_convolution():
    found = kr.audit(UNet(), (3, 16, 16))
    (block,) = blocks_of(found)
    assert (block["name"], block["K"], block["R"]) == ("joined.1.2 ... head", 2, 8)
    frame = found.to_frame()
    runs = frame.loc[frame["level"] == "chain", "name"].tolist()
    assert runs == ["up.0 ... joined.0.0", "up.1 ... joined.1.0"]


def test_a_generators_noise_bounds_its_first_channels():
    start = layers_of(kr.audit(Generator(), (10,))).iloc[0]
    assert (start["K"], start["R"], start["redundancy"]) == (512, 10, "approximate")


def test_a_language_model_is_its_linear_layers_and_a_lookup():
    found = kr.audit(Language(), TOKENS)
    T, D = 12, 16
    layers = layers_of(found)
    assert layers["kind"].tolist() == ["embedding", *["linear"] * 8, "linear"]
    assert layers["macs"].iloc[0] == 0
    assert found.macs == 2 * T * (3 * D * D + D * D + 2 * 40 * D) + T * D * 30
    assert layers["name"].iloc[-1] == "words"  # the head is the embedding
    assert found.parameters == sum(p.numel() for p in Language().parameters())
    assert found.not_understood == ()


@pytest.mark.filterwarnings("ignore:Support for mismatched src_key_padding_mask")
def test_a_mask_by_name_changes_no_count():
    mask = torch.zeros(1, 12, dtype=torch.bool)
    found = kr.audit(Language(), {"ids": TOKENS, "mask": mask})
    assert found.macs == kr.audit(Language(), TOKENS).macs
    assert found.not_understood == ()


def test_a_wavenets_gates_end_its_linear_runs_and_sums_its_branches():
    layers = layers_of(kr.audit(Wave(), (1, 20))).set_index("name")
    assert layers["macs"].sum() == 20 * (6 + 3 * (2 * 6 * 12 + 6 * 6 + 6 * 9) + 9 * 20)
    for i in range(3):
        skip = layers.loc[f"skips.{i}"]
        assert (skip["K"], skip["R"], skip["redundancy"]) == (9, 6, "branch only")
    assert layers.loc["start", "R"] == 1
    assert layers.loc["last", "redundancy"] == "approximate"


def test_siamese_twins_share_their_parameters_and_work_twice():
    found = kr.audit(Siamese(), [(3, 8, 8), (3, 8, 8)])
    assert found.parameters == 3 * 4 * 9 + 4 + 4 * 16 + 16 + 17
    assert found.macs == 2 * 36 * (3 * 4 * 9 + 4 * 16) + 16
    assert [(b["K"], b["R"], b["redundancy"]) for b in blocks_of(found)] == [
        (16, 4, "branch only")
    ] * 2
    assert found.shares["branch only"] == pytest.approx(192 / 209)


def test_a_block_written_in_functions_is_found_and_swish_ends_a_linear_run():
    found = kr.audit(Efficient(), (6, 8, 8))
    (block,) = blocks_of(found)
    assert block["kind"] == "inverted_residual_block"
    assert (block["name"], block["K"], block["R"]) == ("widen ... narrow", 6, 24)
    assert (found.to_frame()["level"] != "chain").all()


def test_a_video_network_has_no_pointwise_layer():
    assert blocks_of(kr.audit(Video(), (3, 4, 8, 8))) == []
