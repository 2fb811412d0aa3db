"""Folding: the same function with the channels that can pass, and a reason for every other edge."""

import copy
import dataclasses
import itertools

import hypothesis
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import krratio as kr
from audit_models import Inverted, Net, Residual
from krratio.errors import NonFiniteError
from krratio.rewriting.errors import FoldError
from random_networks import networks


def randomized(model):
    """Weights, offsets and statistics of no special value, float64, eval mode."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model.double().eval()


def bottleneck(R=3, K=12, *, bias=False, norm=False, padding=0, head="linear"):
    """1x1, 3x3, 1x1 (R -> K), and what reads the K channels."""
    layers = [
        nn.Conv2d(4, 5, 1, bias=bias),
        nn.Conv2d(5, R, 3, bias=bias),
        nn.Conv2d(R, K, 1, bias=bias),
    ]
    layers += [nn.BatchNorm2d(K)] if norm else []
    if head == "linear":
        layers += [nn.AvgPool2d(3), nn.Flatten(), nn.Linear(4 * K, 10)]
    else:
        layers += [nn.Conv2d(K, 7, 3, padding=padding)]
    return randomized(nn.Sequential(*layers)), (4, 8, 8)


def same(one, other, shape):
    x = torch.randn(3, *shape, dtype=torch.float64)
    with torch.no_grad():
        expected, found = one(x), other(x)
    return float((expected - found).abs().max() / expected.abs().max())


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("head", "padding"), [("linear", 0), ("conv", 0), ("conv", 1)])
def test_an_expansion_folds_to_its_bottleneck_or_one_channel_more(norm, bias, head, padding):
    model, shape = bottleneck(bias=bias, norm=norm, padding=padding, head=head)
    found = kr.fold(model, shape)
    assert same(model, found.model, shape) < 1e-10
    row = found.report.set_index("name").loc["2"]
    constant = (bias or norm) and padding > 0  # an offset outside of the range meets zero padding
    assert row["channels"] == 3 + constant
    assert row["reason"] == ""
    before, after = kr.audit(model, shape), kr.audit(found.model, shape)
    assert after.parameters == before.parameters - found.report["saved"].sum() < before.parameters
    assert after.macs < before.macs


def test_the_naive_fold_is_wrong_where_an_offset_meets_zero_padding():
    """Dropping the constant channel, the offset to the reader's bias: wrong by tens of per cent."""
    model, shape = bottleneck(bias=True, padding=1, head="conv")
    naive = copy.deepcopy(model)
    wide, reader = model[2], model[3]
    with torch.no_grad():
        weight = torch.einsum("mkab,kr->mrab", reader.weight, wide.weight[:, :, 0, 0])
        naive[3] = nn.Conv2d(3, 7, 3, padding=1).double()
        naive[3].weight.copy_(weight)
        naive[3].bias.copy_(reader.bias + torch.einsum("mkab,k->m", reader.weight, wide.bias))
    naive[2] = nn.Identity()
    assert same(model, naive, shape) > 0.1
    assert same(model, kr.fold(model, shape).model, shape) < 1e-10


def test_few_outputs_leave_few_channels():
    model = randomized(
        nn.Sequential(
            nn.Conv1d(8, 16, 3, padding=1), nn.AvgPool1d(9), nn.Flatten(), nn.Linear(16, 3)
        )
    )
    found = kr.fold(model, (8, 9))
    assert found.report.set_index("name").loc["0", "channels"] == 3
    assert same(model, found.model, (8, 9)) < 1e-10


def test_a_numerical_rank_is_cut_off_on_request_and_its_error_reported():
    model, shape = bottleneck(R=6, K=12)
    with torch.no_grad():
        left, sizes, right = torch.linalg.svd(model[2].weight[:, :, 0, 0], full_matrices=False)
        sizes[2:] = 1e-4 * sizes[0]
        model[2].weight.copy_((left * sizes @ right)[..., None, None])
    assert kr.fold(model, shape).report.set_index("name").loc["2", "channels"] == 6
    cut = kr.fold(model, shape, tol=1e-3)
    row = cut.report.set_index("name").loc["2"]
    assert row["channels"] == 2
    assert row["error"] == pytest.approx(2e-4 / float((sizes / sizes[0]).norm()), rel=1e-6)
    assert 1e-6 < cut.difference < 1e-2


@pytest.mark.parametrize(
    ("model", "shape", "name", "reason"),
    [
        (Residual(), (32, 8, 8), "expand.0", "activation (relu) follows, and a sum joins"),
        (Residual(), (32, 8, 8), "reduce.0", "activation"),
        (Inverted(), (8, 8, 8), "depthwise.0", "has groups"),
        (nn.Sequential(nn.Conv1d(2, 8, 1), nn.Conv1d(8, 8, 3, groups=8)), (2, 9), "0", "depthwise"),
        (nn.Sequential(nn.Conv1d(2, 8, 1)), (2, 9), "0", "output of the network"),
        (
            nn.Sequential(nn.Conv1d(2, 8, 1), nn.MaxPool1d(2), nn.Conv1d(8, 2, 1)),
            (2, 8),
            "0",
            "max pooling",
        ),
        (nn.Sequential(nn.Conv1d(2, 8, 1), nn.Linear(9, 4)), (2, 9), "0", "moved"),
        (
            nn.Sequential(nn.Conv1d(8, 4, 1), nn.Conv1d(4, 8, 1)),
            (8, 9),
            "0",
            "no more than what can pass",
        ),
        (
            nn.Sequential(nn.Conv1d(2, 8, 1), nn.AvgPool1d(3, padding=1), nn.Conv1d(8, 2, 1)),
            (2, 9),
            "0",
            "padded pooling",
        ),
        (
            nn.Sequential(nn.Conv1d(2, 8, 1), nn.ChannelShuffle(2), nn.Conv1d(8, 2, 1)),
            (2, 9),
            "0",
            "moved",
        ),
    ],
)
def test_what_does_not_fold_is_listed_with_its_reason(model, shape, name, reason):
    model = randomized(copy.deepcopy(model))
    found = kr.fold(model, shape)
    rows = found.report.set_index("name")
    assert reason in rows.loc[name, "reason"]
    assert found.difference == 0
    assert sum(p.numel() for p in found.model.parameters()) == sum(
        p.numel() for p in model.parameters()
    )


def test_shared_weights_do_not_fold():
    conv = nn.Conv1d(2, 2, 1)
    wide = nn.Conv1d(2, 8, 1), nn.Conv1d(8, 2, 1)
    model = nn.Sequential(*wide, conv, *wide)
    reasons = kr.fold(randomized(model), (2, 9)).report["reason"]
    assert reasons.str.contains("shared").any()


def test_the_network_that_was_given_stays_as_it_was_and_dtype_and_mode_too():
    model, shape = bottleneck(bias=True, norm=True)
    model = model.float().train()
    before = copy.deepcopy(model.state_dict())
    found = kr.fold(model, shape)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert model.training
    assert found.model.training
    assert {p.dtype for p in found.model.parameters()} == {torch.float32}
    x = torch.randn(2, *shape)
    torch.testing.assert_close(found.model.eval()(x), model.eval()(x), rtol=1e-4, atol=1e-4)


def test_a_chain_folds_edge_by_edge():
    """Two expansions in a row: both become as narrow as what passes."""
    layers = nn.Conv1d(3, 2, 1), nn.Conv1d(2, 9, 1), nn.Conv1d(9, 11, 3), nn.AvgPool1d(7)
    model = randomized(nn.Sequential(*layers, nn.Flatten(), nn.Linear(11, 5)))
    found = kr.fold(model, (3, 9))
    assert found.report.set_index("name")["channels"].to_dict() == {"0": 2, "1": 2, "2": 5, "5": 5}
    assert found.difference < 1e-12


def test_what_cannot_be_folded_at_all_is_refused():
    model, shape = bottleneck()
    with pytest.raises(FoldError, match="device='meta'"):
        kr.fold(model.to("meta"), shape)
    with pytest.raises(FoldError, match="tol=2"):
        kr.fold(bottleneck()[0], shape, tol=2)
    mixed, shape = bottleneck()
    mixed[0].float()
    with pytest.raises(FoldError, match="dtypes"):
        kr.fold(mixed, shape)


def wide(*between, outputs=2):
    """1x1 convolutions 2 -> 8 -> outputs with something between."""
    return nn.Sequential(nn.Conv1d(2, 8, 1), *between, nn.Conv1d(8, outputs, 1))


class Aliased(nn.Module):
    """Layers with two names, as many networks keep them."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv1d(2, 8, 1), nn.Conv1d(8, 2, 1)
        self.stem = nn.Sequential(self.first)

    def forward(self, x):
        return self.second(self.stem(x))


class Measured(nn.Module):
    """A weight that something else reads too."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv1d(2, 8, 1), nn.Conv1d(8, 2, 1)

    def forward(self, x):
        return self.second(self.first(x)) * self.first.weight.sum()


class NormTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (
            nn.Conv1d(2, 8, 1),
            nn.Conv1d(8, 8, 1),
            nn.Conv1d(8, 2, 1),
        )
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x):
        return self.third(self.norm(self.second(self.norm(self.first(x)))))


class Places(nn.Module):
    """A sum over places: an offset counts once for each."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv1d(2, 8, 1), nn.Linear(8, 20)

    def forward(self, x):
        return self.second(self.first(x).sum(2))


class OverChannels(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 8, 1), nn.Conv1d(8, 20, 1)

    def forward(self, x):
        return self.second(self.first(x).mean(1))


@dataclasses.dataclass
class Out:
    logits: torch.Tensor
    features: torch.Tensor


class Structured(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv1d(2, 8, 1), nn.Conv1d(8, 2, 1)

    def forward(self, x):
        features = self.first(x)
        return Out(self.second(features), features)


@pytest.mark.parametrize(
    ("model", "shape", "reason"),
    [
        (Aliased(), (2, 9), "several names"),
        (Measured(), (2, 9), "used elsewhere"),
        (NormTwice(), (2, 9), "used elsewhere"),
        (Places(), (2, 9), "sum over places"),
        (OverChannels(), (2, 8, 9), "mean over channels"),
        (Structured(), (2, 9), "output of the network"),
        (wide(nn.InstanceNorm1d(8)), (2, 9), "normalization"),
        (wide(nn.BatchNorm1d(8, track_running_stats=False)), (2, 9), "normalization"),
    ],
)
def test_what_looks_foldable_and_is_not_stays(model, shape, reason):
    model = randomized_offsets(model)
    found = kr.fold(model, shape)
    assert reason in found.report.set_index("name").loc[found.report["name"].iloc[0], "reason"]
    assert found.difference == 0
    count = [sum(p.numel() for p in m.parameters()) for m in (model, found.model)]
    assert count[0] == count[1]


def randomized_offsets(model):
    torch.manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.double().eval()


def test_folding_goes_on_until_nothing_folds():
    layers = nn.Conv1d(20, 32, 1), nn.Conv1d(32, 64, 1), nn.Conv1d(64, 2, 1)
    model = randomized_offsets(nn.Sequential(*layers))
    once = kr.fold(model, (20, 5))
    assert once.report.set_index("name").loc["0", "channels"] == 2
    assert once.difference < 1e-10
    again = kr.fold(once.model, (20, 5))
    assert (again.report["reason"] != "").all()
    saved = [sum(p.numel() for p in m.parameters()) for m in (model, once.model)]
    assert saved[0] - saved[1] == once.report["saved"].sum()


def test_frozen_layers_and_modes_stay_so_and_no_random_number_is_used():
    model = randomized_offsets(wide(nn.BatchNorm1d(8), nn.Identity()))
    model.train()
    model[2].eval()
    model[0].requires_grad_(False)
    state = torch.get_rng_state()
    found = kr.fold(model, (2, 9))
    assert torch.equal(torch.get_rng_state(), state)
    assert found.report.set_index("name").loc["0", "reason"] == ""
    assert [m.training for m in found.model] == [True, True, False, True]
    assert not found.model[0].weight.requires_grad
    assert found.model[3].weight.requires_grad


class Stream(nn.Module):
    """A residual stream of 16 channels that little is written to: 3 by the stem, 2 a branch."""

    def __init__(self, *, bias=False, padding=0, norm=False, minus=False):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(4, 3, 1, bias=bias), nn.Conv1d(3, 16, 1, bias=bias))
        self.branch = nn.Sequential(
            nn.Conv1d(16, 2, 3, padding=1, bias=bias), nn.Conv1d(2, 16, 1, bias=bias)
        )
        self.norm = nn.BatchNorm1d(16) if norm else nn.Identity()
        self.head = nn.Conv1d(16, 9, 3, padding=padding)
        self.minus = minus

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.branch(x))
        return self.head(x - y if self.minus else x + y)


def test_a_residual_stream_folds_to_the_sum_of_what_is_written_to_it():
    model = randomized(Stream())
    found = kr.fold(model, (4, 11))
    rows = found.report.set_index("name")
    assert rows.loc["stem.1", "channels"] == rows.loc["branch.1", "channels"] == 3 + 2
    assert rows.loc["stem.1", "reader"] == "branch.0, head"
    assert same(model, found.model, (4, 11)) < 1e-10
    before, after = kr.audit(model, (4, 11)), kr.audit(found.model, (4, 11))
    assert before.parameters - after.parameters == found.report["saved"].sum()
    assert after.macs < before.macs


@pytest.mark.parametrize("minus", [False, True])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("padding", [0, 1])
def test_offsets_on_a_residual_stream_cost_a_channel_each_where_padding_meets_them(
    padding, norm, minus
):
    model = randomized(Stream(bias=True, padding=padding, norm=norm, minus=minus))
    found = kr.fold(model, (4, 11))
    assert found.report.set_index("name").loc["stem.1", "channels"] == 3 + 2 + 2  # branch.0 pads
    assert same(model, found.model, (4, 11)) < 1e-10


class Projection(nn.Module):
    """A shortcut with weights: both ends of the sum are written by layers."""

    def __init__(self, *, minus=False):
        super().__init__()
        self.shortcut = nn.Conv1d(3, 20, 1)
        self.branch = nn.Sequential(nn.Conv1d(3, 2, 1), nn.Conv1d(2, 20, 1))
        self.head = nn.Linear(20, 30)
        self.minus = minus

    def forward(self, x):
        one, two = self.shortcut(x), self.branch(x)
        return self.head((one - two if self.minus else one + two).mean(2))


@pytest.mark.parametrize("minus", [False, True])
def test_a_projection_shortcut_folds_with_its_branch_and_offsets_go_to_the_reader(minus):
    model = randomized_offsets(Projection(minus=minus))
    found = kr.fold(model, (3, 9))
    rows = found.report.set_index("name")
    assert rows.loc["shortcut", "channels"] == rows.loc["branch.1", "channels"] == 3 + 2
    assert same(model, found.model, (3, 9)) < 1e-10


def test_linear_layers_fold_too():
    layers = nn.Linear(6, 2), nn.Linear(2, 20), nn.BatchNorm1d(20), nn.Linear(20, 4)
    model = randomized(nn.Sequential(*layers))
    found = kr.fold(model, (6,))
    assert found.report.set_index("name").loc["1", "channels"] == 2
    assert same(model, found.model, (6,)) < 1e-10


class TwoReaders(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv1d(2, 12, 1), nn.Conv1d(12, 5, 3)
        self.third = nn.Conv1d(12, 4, 1)

    def forward(self, x):
        x = self.first(x)
        return self.second(x), self.third(x)


def test_several_readers_fold_together():
    model = randomized_offsets(TwoReaders())
    found = kr.fold(model, (2, 9))
    row = found.report.set_index("name").loc["first"]
    assert (row["channels"], row["reader"]) == (2, "second, third")
    assert found.difference < 1e-12


class Joined(nn.Module):
    """Three parts side by side; the second expands 2 channels to 9, with an offset."""

    def __init__(self, *, padding=0, flat=False):
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(4, 2, 1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv1d(4, 2, 3, padding=1), nn.Conv1d(2, 9, 1))
        self.norm = nn.BatchNorm1d(9)
        self.flat = flat
        self.head = nn.Linear(14 * 9, 40) if flat else nn.Conv1d(14, 8, 3, padding=padding)

    def forward(self, x):
        y = torch.cat([self.first(x), self.norm(self.second(x)), x[:, :3]], 1)
        return self.head(y.flatten(1) if self.flat else y)


@pytest.mark.parametrize(("padding", "channels"), [(0, 2), (1, 3)])
def test_a_slice_of_a_concatenation_folds(padding, channels):
    model = randomized(Joined(padding=padding))
    found = kr.fold(model, (4, 9))
    assert found.report.set_index("name").loc["second.1", "channels"] == channels
    assert found.model.head.in_channels == 2 + channels + 3
    assert same(model, found.model, (4, 9)) < 1e-10


def test_a_slice_folds_through_flattening():
    model = randomized(Joined(flat=True))
    found = kr.fold(model, (4, 9))
    assert found.report.set_index("name").loc["second.1", "channels"] == 2
    assert found.model.head.in_features == 9 * (2 + 2 + 3)
    assert same(model, found.model, (4, 9)) < 1e-10


def test_the_pointwise_half_of_a_linear_fire_module_folds_to_what_was_squeezed():
    fire = kr.blocks.fire(6, 12, (3, 3), squeeze=2)
    model = randomized(nn.Sequential(fire, nn.Conv2d(12, 20, 3, padding=1)))
    found = kr.fold(model, (6, 7, 7))
    assert found.report.set_index("name").loc["0.pointwise.0", "channels"] == 2
    assert found.difference < 1e-12


class InputSkip(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.Conv1d(8, 2, 1), nn.Conv1d(2, 8, 1))
        self.head = nn.Conv1d(8, 3, 1)

    def forward(self, x):
        return self.head(x + self.branch(x))


def test_a_skip_from_the_input_does_not_fold():
    found = kr.fold(randomized(InputSkip()), (8, 9))
    reason = found.report.set_index("name").loc["branch.1", "reason"]
    assert "a skip adds the network's input" in reason


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch's own notice
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(drawn=networks())
def test_random_networks_stay_the_same_function_and_never_grow(drawn):
    model, shape = drawn
    found = kr.fold(model, shape)
    assert found.difference < 1e-9
    undone = found.report["reason"].str.contains("the folded network")
    assert not undone.any()  # the algebra is right before the check looks at it
    before, after = kr.audit(model, shape), kr.audit(found.model, shape)
    assert before.parameters - after.parameters == found.report["saved"].sum()
    assert after.macs <= before.macs


def expanding(forward, *, padding=0):
    """3 -> 4 channels, expanded to 16, read by a 3x3 convolution, with ``forward`` around."""
    return randomized_offsets(
        Net(
            forward,
            first=nn.Conv2d(3, 4, 3, padding=1),
            expand=nn.Conv2d(4, 16, 1),
            read=nn.Conv2d(16, 5, 3, padding=padding),
        )
    )


@pytest.mark.parametrize("tol", [None, 1e-9])
@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (
            lambda m, x: m.read(y := m.expand(m.first(x))) / y.shape[1] ** 0.5,
            "depends on the number of channels",
        ),
        (
            lambda m, x: (1e12 * x.sum((1, 2, 3)), m.read(y := m.expand(m.first(x))) / y.shape[1]),
            "depends on the number of channels",
        ),
        (lambda m, x: m.read(m.expand(m.first(x)).relu()), "activation"),
        (
            lambda m, x: m.read(F.pad(m.expand(m.first(x)), (1, 1), value=2.0)),
            "another number",
        ),
        (lambda m, x: m.read(m.expand(m.first(x)) + m.first(x)[:, :1]), "sum"),
        (lambda m, x: m.read(torch.addcmul(y := m.expand(m.first(x)), y, y)), "product"),
        (lambda m, x: m.read(torch.lerp(y := m.expand(m.first(x)), y * 2, y)), "lerp"),
        (lambda m, x: m.read(m.expand(m.first(x)).div(0.1, rounding_mode="floor")), "div"),
    ],
    ids=[
        *("root of K", "an output that hides it", "activation", "padding with 2", "broadcast"),
        *("addcmul", "lerp", "rounding"),
    ],
)
def test_what_would_change_the_function_stays_also_with_a_tolerance(forward, reason, tol):
    model = expanding(forward)
    found = kr.fold(model, (3, 8, 8), tol=tol)
    assert reason in found.report.set_index("name").loc["expand", "reason"]
    assert found.difference == 0


@pytest.mark.parametrize(
    ("forward", "padding", "channels"),
    [
        (lambda m, x: m.read(0.5 * m.expand(m.first(x))), 0, 4),
        (lambda m, x: m.read(-m.expand(m.first(x)) / 3), 0, 4),
        (lambda m, x: m.read(F.pad(m.expand(m.first(x)), (1, 2, 0, 1))), 0, 5),
        (lambda m, x: m.read(m.expand(m.first(x)).flatten(2).unflatten(2, (8, 8))), 0, 4),
        (lambda m, x: m.read(-m.expand(m.first(x))), 1, 5),
    ],
    ids=["scale", "negative", "zeros", "flat places", "negative before padding"],
)
def test_numbers_zeros_and_reshaped_places_do_not_stop_a_fold(forward, padding, channels):
    model = expanding(forward, padding=padding)
    found = kr.fold(model, (3, 8, 8))
    assert found.report.set_index("name").loc["expand", "channels"] == channels
    assert same(model, found.model, (3, 8, 8)) < 1e-10


def test_a_sum_that_all_readers_see_costs_one_constant_channel():
    model = randomized_offsets(
        Net(
            lambda m, x: m.read(torch.sub(m.one(x[:, :3]), m.two(x[:, 3:]), alpha=2)),
            one=nn.Conv2d(3, 24, 1),
            two=nn.Conv2d(3, 24, 1),
            read=nn.Conv2d(24, 50, 3, padding=1),
        )
    )
    found = kr.fold(model, (6, 7, 7))
    assert found.report.set_index("name").loc["one", "channels"] == 3 + 3 + 1
    assert same(model, found.model, (6, 7, 7)) < 1e-10


def test_other_tensors_keep_their_dtype():
    model, shape = bottleneck()
    model = model.float()
    model.register_buffer("table", torch.tensor([16777217.0], dtype=torch.float64))
    found = kr.fold(model, shape)
    assert found.model.table.dtype == torch.float64
    assert found.model.table.item() == 16777217.0


def test_weights_that_would_overflow_stay():
    model = nn.Sequential(nn.Conv2d(4, 32, 1, bias=False), nn.Conv2d(32, 4, 1, bias=False))
    with torch.no_grad():
        for layer, size in zip(model, (6e4, 1e-4), strict=True):
            layer.weight.fill_(size)
    found = kr.fold(model.half(), (4, 3, 3))
    assert "overflow" in found.report.loc[0, "reason"]
    assert all(p.isfinite().all() for p in found.model.parameters())


def test_tensors_and_names_are_inputs_too():
    model = Net(
        lambda m, tokens, scale: m.second(m.first(m.table(tokens).mean(1))) * scale,
        table=nn.Embedding(7, 3),
        first=nn.Linear(3, 20),
        second=nn.Linear(20, 30),
    )
    model = randomized_offsets(model)
    inputs = {"tokens": torch.tensor([[0, 2, 6], [1, 1, 5]]), "scale": torch.full((2, 1), 2.0)}
    found = kr.fold(model, inputs)
    assert found.report.set_index("name").loc["first", "channels"] == 3
    assert 0 < found.difference < 1e-12


CALLS = itertools.count()


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (None, FoldError, "a NoneType; a torch module is needed"),
        (Net(lambda m, x: m.a(x) * next(CALLS), a=nn.Conv1d(2, 2, 1)), FoldError, "second time"),
        (nn.Conv1d(2, 2, 1), NonFiniteError, "weight 'weight' holds NaN"),
    ],
    ids=["nothing", "random", "NaN"],
)
def test_what_fold_cannot_take_is_an_error_of_its_own(model, error, message):
    if isinstance(model, nn.Conv1d):
        nn.init.constant_(model.weight, float("nan"))
    with pytest.raises(error, match=message):
        kr.fold(model, (2, 5))
    with pytest.raises(FoldError, match="tol='a'"):
        kr.fold(nn.Conv1d(2, 2, 1), (2, 5), tol="a")


def test_outputs_that_are_no_numbers_are_compared_as_they_are():
    model = expanding(lambda m, x: m.read(m.expand(m.first(x))).sum((2, 3)).argmax(1))
    assert kr.fold(model, (3, 8, 8)).report.set_index("name").loc["expand", "reason"] == ""
