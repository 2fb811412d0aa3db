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


# Axes


@pytest.mark.parametrize(
    "moved",
    [lambda y: y.transpose(2, 3), lambda y: y.permute(0, 2, 1, 3), lambda y: y.permute(0, 2, 3, 1)],
)
def test_a_linear_layer_ends_a_block_only_where_the_channels_are_last(moved):
    model = Net(lambda net, x: net.l(moved(net.a(x))), a=conv(3, 16), l=nn.Linear(16, 64))
    last = moved(torch.empty(1, 5, 6, 7)).shape[-1] == 5
    assert len(rows(model, level="block")) == last


def wide(between, last, **parts):
    """3 -> 4 -> 16 channels, something linear or not, and a last layer."""
    parts = {"a": conv(3, 4), "e": Conv(4, 16, 1), "last": last, **parts}
    return Net(lambda net, x: net.last(between(net, net.e(net.a(x)))), **parts)


def shuffle_by_hand(_net, y):
    return y.view(1, 2, 8, *y.shape[2:]).transpose(1, 2).reshape(y.shape)


def windows(_net, y):
    """Tokens of 4 x 4 windows, as in Swin."""
    y = y.permute(0, 2, 3, 1).view(1, 2, 4, 2, 4, 16)
    return y.permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 16)


@pytest.mark.parametrize(
    ("between", "last", "redundancy"),
    [
        (lambda _, y: F.pixel_shuffle(y, 2), Conv(4, 5, 1), "approximate"),
        (lambda _, y: y.reshape(1, 4, -1, 4), Conv(4, 5, 1), "approximate"),
        (lambda _, y: y.reshape(1, 4, -1, 16), Conv(4, 5, 1), "approximate"),
        (lambda _, y: F.pixel_unshuffle(y, 2), Conv(64, 5, 1), "exact"),
        (lambda _, y: F.pixel_unshuffle(F.pixel_shuffle(y, 2), 2), Conv(16, 5, 1), "exact"),
        (lambda _, y: F.channel_shuffle(y, 2), Conv(16, 5, 1), "exact"),
        (shuffle_by_hand, Conv(16, 5, 1), "exact"),
        (windows, nn.Linear(16, 5), "exact"),
        (lambda _, y: y.flatten(1), nn.Linear(1024, 5), "exact"),
        (lambda _, y: y.permute(0, 2, 3, 1).flatten(1), nn.Linear(1024, 5), "exact"),
        (
            lambda _, y: y.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1),
            nn.Linear(16, 5),
            "exact",
        ),
        (lambda _, y: y.split([7, 9], 1)[1], Conv(9, 5, 1), "exact"),
        (lambda _, y: torch.stack([y, y], 2).flatten(1, 2), Conv(32, 5, 1), "exact"),
    ],
)
def test_channels_fold_exactly_only_where_a_layer_reads_them_all_on_one_axis(
    between, last, redundancy
):
    block = rows(wide(between, last), (3, 8, 8), "block").iloc[0]
    assert (block["K"], block["R"], block["redundancy"]) == (16, 4, redundancy)


NONLINEAR = [
    lambda _, y: torch.div(y, 0.1, rounding_mode="floor"),
    lambda _, y: torch.addcmul(torch.zeros(1), y, y),
    lambda net, y: torch.lerp(y, 2 * y, net.other(y)),
    lambda _, y: torch.addcdiv(torch.zeros(1), torch.ones(1), y),
    lambda _, y: torch.ones(1) / y,
    lambda _, y: y.long().float(),
    lambda _, y: y.gather(1, y.argmax(1, keepdim=True).expand_as(y)),
]
LINEAR = [
    lambda _, y: torch.div(y, 0.1),
    lambda _, y: torch.addcmul(torch.zeros(1), y, torch.ones(1)),
    lambda _, y: torch.addcdiv(torch.zeros(1), y, torch.ones(1)),
    lambda _, y: torch.lerp(torch.zeros(1), y, 0.3),
    lambda _, y: y.double().float(),
    lambda _, y: y[:, torch.arange(16)],
]


@pytest.mark.parametrize("between", NONLINEAR)
def test_products_of_values_and_roundings_are_not_linear(between):
    block = rows(wide(between, Conv(16, 5, 1), other=Conv(16, 16, 1)), (3, 8, 8), "block").iloc[0]
    assert block["redundancy"] == "approximate"


@pytest.mark.parametrize("between", LINEAR)
def test_the_same_operations_with_constants_are_linear(between):
    block = rows(wide(between, Conv(16, 5, 1)), (3, 8, 8), "block").iloc[0]
    assert block["redundancy"] == "exact"


def test_options_are_known_by_place_and_by_name():
    model = Net(lambda net, x: torch.add(net.c(x), x, alpha=3).flatten(1), c=conv(3, 3))
    _, added, flat = walk(model, [(3, 8, 8)]).operations
    assert added.options == {"alpha": 3}
    assert flat.options[1] == [1, 192]


def test_a_sum_of_layers_can_pass_the_sum_of_their_ranks():
    def forward(net, x):
        return net.l((net.e(x) + net.g(x)).mean((2, 3)))

    for C, out, rank in ((3, 5, 5), (3, 9, 6), (2, 9, 4)):
        model = Net(forward, e=Conv(C, 24, 1), g=Conv(C, 24, 1), l=nn.Linear(24, out))
        (run,) = rows(model, (C, 8, 8), "chain").to_dict("records")
        assert (run["K"], run["R"], run["redundancy"]) == (24, rank, "branch only")


# A weight on the left


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: torch.einsum("bchw,dc->bdhw", net.a(x), net.w),
        lambda net, x: (net.w @ net.a(x).flatten(2)).unflatten(2, (16, 16)),
        lambda net, x: (net.w @ net.a(x).flatten(2)).view(1, 64, 16, 16),
    ],
)
def test_a_weight_on_the_left_of_a_product_is_a_linear_layer_on_channels(forward):
    w = nn.Parameter(torch.ones(64, 16))
    model = Net(lambda net, x: net.last(forward(net, x)), a=conv(3, 16), w=w, last=Conv(64, 5, 1))
    found = kr.audit(model, (3, 16, 16))
    assert found.not_understood == ()
    frame = found.to_frame()
    layers = frame[frame["level"] == "layer"].set_index("name")
    assert (layers.loc["w", "K"], layers.loc["w", "params"]) == (64, 64 * 16)
    assert layers.loc["w", "macs"] == 256 * 64 * 16
    (block,) = frame[frame["level"] == "block"].to_dict("records")
    assert (block["K"], block["R"], block["redundancy"]) == (64, 16, "exact")


def test_a_square_weight_on_the_left_is_not_one_of_places():
    w = nn.Parameter(torch.ones(16, 16))
    model = Net(lambda net, x: F.relu(net.w @ net.a(x).flatten(2)), a=conv(3, 16), w=w)
    assert len(rows(model, (3, 4, 4), "block")) == 1
