"""Parameters and channels behind tensors that were moved: permuted, reshaped, expanded."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import krratio as kr
from audit_models import Inverted, Net, Next, Residual, Shuffle, linear_bottleneck
from krratio.auditing.structure.flow import Flow
from krratio.auditing.structure.layers import parameters_of
from krratio.auditing.walking.inputs import inputs_of
from krratio.auditing.walking.walk import walk
from odd_models import Efficient, Experts, Generator, Siamese, Speech, UNet, Video, Wave

Conv = nn.Conv2d


def conv(C, K, size=3):
    return Conv(C, K, size, padding=size // 2)


def rows(model, shape=(3, 16, 16), level="layer"):
    frame = kr.audit(model, shape).to_frame()
    return frame[frame["level"] == level].reset_index(drop=True)


# Parameters of a linear layer on a moved tensor


def channels_last(net, x):
    return net.l(net.a(x).permute(0, 2, 3, 1))


def tokens(net, x):
    return net.l(net.a(x).flatten(2).transpose(1, 2))


@pytest.mark.parametrize("forward", [channels_last, tokens])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_on_a_moved_tensor_has_the_parameters_it_has(forward, bias):
    """Torch expands its weight over the rows of the image and adds the bias by itself."""
    model = Net(forward, a=conv(3, 16), l=nn.Linear(16, 64, bias=bias))
    found = kr.audit(model, (3, 16, 16))
    frame = found.to_frame()
    layers = frame[frame["level"] == "layer"].set_index("name")
    assert layers.loc["l", "params"] == 16 * 64 + 64 * bias
    assert layers["params"].sum() == found.parameters
    (block,) = frame[frame["level"] == "block"].to_dict("records")
    assert (block["kind"], block["K"], block["R"]) == ("expansion_block", 64, 16)
    assert found.shares == {"approximate": 1.0, "no block": 0.0}


def test_a_convnext_block_without_norm_has_all_its_parameters_in_its_layers():
    def forward(net, x):
        y = net.narrow(F.gelu(net.widen(net.depthwise(x).permute(0, 2, 3, 1))))
        return x + y.permute(0, 3, 1, 2)

    C = 12
    model = Net(
        forward,
        depthwise=Conv(C, C, 7, padding=3, groups=C),
        widen=nn.Linear(C, 4 * C),
        narrow=nn.Linear(4 * C, C),
    )
    found = kr.audit(model, (C, 8, 8))
    frame = found.to_frame()
    layers = frame[frame["level"] == "layer"].set_index("name")["params"]
    assert layers.to_dict() == {
        "depthwise": C * 49 + C,
        "widen": 4 * C * C + 4 * C,
        "narrow": 4 * C * C + C,
    }
    (block,) = frame[frame["level"] == "block"].to_dict("records")
    assert (block["kind"], block["K"], block["R"]) == ("depthwise_separable_block", 48, 12)
    assert sum(found.shares.values()) == pytest.approx(1)


def test_a_place_that_is_added_is_no_bias():
    def forward(net, x):
        return F.linear(x.transpose(1, 2), net.w) + net.place

    model = Net(forward, w=nn.Parameter(torch.ones(7, 5)), place=nn.Parameter(torch.ones(9, 7)))
    assert rows(model, (5, 9))["params"].tolist() == [7 * 5]


def parts_twice(net, x):
    """The same rows of one weight twice, and other rows once."""
    y = net.a(x).permute(0, 2, 3, 1)
    return sum(F.linear(y, net.w[rows], net.b) for rows in (slice(8), slice(8), slice(8, 16)))


MANY = [
    (Residual(), (32, 8, 8)),
    (Residual(groups=4), (32, 8, 8)),
    (Inverted(), (8, 8, 8)),
    (Shuffle(), (16, 8, 8)),
    (Next(), (12, 8, 8)),
    (linear_bottleneck(), (3, 8, 8)),
    (UNet(), (3, 16, 16)),
    (Generator(), (10,)),
    (Video(), (3, 4, 8, 8)),
    (Wave(), (1, 20)),
    (Experts(), (4, 6, 6)),
    (Speech(), (8, 20)),
    (Siamese(), [(3, 8, 8), (3, 8, 8)]),
    (Efficient(), (6, 8, 8)),
    (Net(channels_last, a=conv(3, 16), l=nn.Linear(16, 64)), (3, 16, 16)),
    (Net(tokens, a=conv(3, 16), l=nn.Linear(16, 64)), (3, 16, 16)),
    (
        Net(
            parts_twice,
            a=conv(3, 6),
            w=nn.Parameter(torch.ones(16, 6)),
            b=nn.Parameter(torch.ones(8)),
        ),
        (3, 8, 8),
    ),
]


@pytest.mark.parametrize(("model", "shape"), MANY, ids=lambda v: type(v).__name__)
def test_layers_hold_no_more_than_all_parameters_and_shares_are_shares(model, shape):
    found = kr.audit(model, shape)
    flow = Flow(walk(model, inputs_of(shape)))
    assert sum(parameters_of(flow.walk, flow.layers).values()) <= found.parameters
    assert all(0 <= share <= 1 for share in (*found.shares.values(), *found.also.values()))
    assert sum(found.shares.values()) == pytest.approx(1)
    assert (found.to_frame()["params"] <= found.parameters).all()
