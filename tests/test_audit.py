"""The audit: known K, R and classes, exact counts, and no trace left."""

import copy
import json
import math
import random
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import krratio as kr
from audit_models import Gate, Inverted, Net, Next, Residual, Shuffle, linear_bottleneck
from krratio.auditing.errors import ForwardError, ModelError
from krratio.auditing.structure.flow import Flow
from krratio.auditing.walking.kinds import Role, role_of
from krratio.auditing.walking.walk import walk
from krratio.errors import ShapeError


def rows(model, shape=(32, 8, 8), level="block"):
    frame = kr.audit(model, shape).to_frame()
    return frame[frame["level"] == level].reset_index(drop=True)


# Blocks, their K, R and class


@pytest.mark.parametrize(
    ("model", "shape", "kind", "K", "R", "redundancy", "also"),
    [
        (Residual(), (32, 8, 8), "bottleneck_block", 32, 8, "branch only", "approximate"),
        (
            Residual(groups=4),
            (32, 8, 8),
            "grouped_bottleneck_block",
            32,
            8,
            "branch only",
            "approximate",
        ),
        (Inverted(), (8, 8, 8), "inverted_residual_block", 8, 48, "none", "saturated, bound only"),
        (Shuffle(), (16, 8, 8), "depthwise_bottleneck_block", 8, 8, "none", "bound only"),
        (Next(), (12, 8, 8), "depthwise_separable_block", 48, 12, "approximate", ""),
        (linear_bottleneck(), (3, 8, 8), "bottleneck_block", 16, 4, "exact", ""),
    ],
)
def test_known_blocks_have_their_known_ratio_and_class(model, shape, kind, K, R, redundancy, also):
    found = rows(model, shape)
    assert len(found) == 1
    row = found.iloc[0]
    assert (row["kind"], row["K"], row["R"], row["ratio"]) == (kind, K, R, K / R)
    assert (row["redundancy"], row["also"]) == (redundancy, also)


def test_a_gate_lies_on_the_data_path_and_pooling_and_concatenation_end_it():
    spatial, pointwise = nn.Conv2d(4, 6, 3), nn.Conv2d(6, 9, 1)
    assert len(rows(nn.Sequential(spatial, Gate(6), pointwise), (4, 8, 8))) == 1
    assert len(rows(nn.Sequential(spatial, nn.AvgPool2d(2), pointwise), (4, 8, 8))) == 0

    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.spatial, self.pointwise = spatial, nn.Conv2d(12, 9, 1)

        def forward(self, x):
            y = self.spatial(x)
            return self.pointwise(torch.cat([y, y], 1))

    assert len(rows(Joined(), (4, 8, 8))) == 0


def test_a_chain_of_separable_convolutions_names_its_own_pointwise_layers():
    """Depthwise, 1x1, depthwise, 1x1: the first 1x1 is no reduction of the second block."""
    layers = [nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1), nn.ReLU()]
    layers += [nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1), nn.ReLU()]
    found = rows(nn.Sequential(*layers), (4, 9, 9))
    assert found["kind"].tolist() == ["depthwise_separable_block"] * 2
    assert found["ratio"].tolist() == [2, 1]


def test_the_counts_of_a_linear_bottleneck_are_those_of_the_formula():
    row = rows(linear_bottleneck(), (3, 8, 8)).iloc[0]
    P = 4 * 10  # weights of the linear layer per channel
    counted = kr.counts.tucker(l=(3, 9), R_j=(5, None), R=4, K=16, P=P)
    assert row["naive"] == counted.naive
    assert row["covering"] == counted.covering
    assert row["excess"] == counted.redundancy > 16 * 4 + 12 * P  # 5 channels of rank 3, too
    assert row["params"] == 3 * 5 + 5 + 5 * 4 * 9 + 4 + 4 * 16 + 16


def test_a_wide_run_is_as_wide_as_what_passes_it():
    row = rows(linear_bottleneck(R=4, K=64), (3, 8, 8), "chain").iloc[0]
    assert (row["K"], row["R"], row["redundancy"]) == (64, 4, "exact")
    narrow = nn.Sequential(nn.Conv2d(16, 32, 1), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(32, 3))
    row = rows(narrow, (16, 8, 8), "chain").iloc[0]
    assert (row["K"], row["R"]) == (32, 3)  # three outputs read them
    assert rows(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1)), (3, 4, 4), "chain"
    ).empty


# Counts against torch itself


def test_parameters_are_counted_once_and_macs_for_each_use():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            return self.conv(F.relu(self.conv(x)))

    found = kr.audit(Tied(), (4, 6, 6))
    assert found.parameters == 4 * 4 * 9 + 4
    assert found.macs == 2 * 36 * 4 * 4 * 9
    assert found.to_frame()["level"].tolist() == ["layer", "layer"]
    twice = Residual()
    shares = kr.audit(nn.Sequential(twice, twice), (32, 8, 8)).shares
    norms = 2 * (8 + 8 + 32)
    assert shares["no block"] == pytest.approx(norms / (norms + 32 * 8 * 2 + 8 * 8 * 9))
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "model", [Residual(), Residual(groups=4), Inverted(32), Shuffle(32), Next(32)]
)
def test_macs_are_half_of_the_flops_that_torch_counts(model):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 32, 8, 8))
    assert 2 * kr.audit(model, (32, 8, 8)).macs == counter.get_total_flops()


def test_convolutions_of_one_two_and_three_modes_and_their_transposes():
    layers = {
        "conv1d": (nn.Conv1d(3, 4, 3, stride=2), (3, 9), 4 * 4 * 3 * 3),
        "conv3d": (nn.Conv3d(3, 4, 3), (3, 5, 5, 5), 27 * 4 * 3 * 27),
        "conv_transpose2d": (
            nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2),
            (6, 5, 5),
            25 * 6 * 2 * 4,
        ),
        "depthwise_conv2d": (nn.Conv2d(6, 12, 3, groups=6), (6, 5, 5), 9 * 12 * 9),
        "linear": (nn.Linear(7, 5), (3, 7), 3 * 5 * 7),
    }
    for kind, (layer, shape, macs) in layers.items():
        found = kr.audit(nn.Sequential(layer), shape)
        row = found.to_frame().iloc[0]
        assert row["kind"] == kind
        assert row["macs"] == found.macs == macs
        assert row["params"] == found.parameters == sum(p.numel() for p in layer.parameters())


def test_the_fan_in_rank_sums_over_groups():
    row = rows(nn.Conv2d(4, 64, 3, groups=2), (4, 5, 5), "layer").iloc[0]
    assert row["fan_in_rank"] == 2 * min(32, 2 * 9)


# What a network is like does not matter, and it stays as it was


def test_several_inputs_outputs_and_functional_calls():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(6, 3, 3, 3))
            self.conv, self.head = nn.Conv2d(2, 6, 1), nn.Linear(6, 4)

        def forward(self, image, mask):
            joined = F.conv2d(image, self.weight, padding=1) + self.conv(mask)
            return {"map": joined, "logits": self.head(joined.mean((2, 3)))}

    found = kr.audit(Two(), [(3, 8, 8), (2, 8, 8)])
    frame = found.to_frame()
    assert frame[frame["level"] == "layer"]["name"].tolist() == ["weight", "conv", "head"]
    assert found.not_understood == ()


def test_attention_is_its_linear_layers_whatever_they_share():
    """Queries from one input, keys and values from another: rows of one weight."""

    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.attend = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x, y):
            return self.attend(x, y, y, need_weights=False)[0]

    found = kr.audit(Cross(), [(5, 16), (7, 16)])
    frame = found.to_frame()
    layers = frame[frame["level"] == "layer"]
    assert layers["params"].sum() == found.parameters
    assert found.macs == (5 + 2 * 7 + 5) * 16 * 16


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_may_have_any_dtype(dtype):
    assert kr.audit(Inverted().to(dtype), (8, 8, 8)).macs == kr.audit(Inverted(), (8, 8, 8)).macs


def test_nothing_of_the_network_changes():
    model = Inverted().train()
    hook = model.widen.register_forward_hook(lambda *_: None)
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    ids, state = [id(p) for p in model.parameters()], torch.get_rng_state()
    kr.audit(model, (8, 8, 8))
    assert [m.training for m in model.modules()] == modes
    assert [id(p) for p in model.parameters()] == ids
    assert list(model.widen._forward_hooks) == [hook.id]
    assert not nn.modules.module._global_forward_hooks
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


LARGE = """
import json, resource, sys
import torch
from torch import nn
import krratio as kr

def peak():
    unit = 1e6 if sys.platform == "darwin" else 1e3  # to MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

def layer():
    return nn.TransformerEncoderLayer(1600, 25, 6400, batch_first=True, norm_first=True)

with torch.device("meta"):
    model = nn.Sequential(nn.Linear(768, 1600), *(layer() for _ in range(40)))
kr.audit(nn.Conv2d(3, 4, 1), (3, 8, 8))  # loads what is loaded once
before = peak()
found = kr.audit(model, (196, 768))
print(json.dumps([found.parameters, found.macs, peak() - before]))
"""


def test_more_than_a_billion_parameters_need_no_memory():
    """Their weights would take 4.9 GB; the bound, 200 MB, is 25 times what was needed."""
    command = [sys.executable, "-c", LARGE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    parameters, macs, grown = json.loads(done.stdout)
    D = 1600
    matrices = 40 * (4 * D * D + 2 * 4 * D * D) + 768 * D
    assert parameters == matrices + 40 * (4 * D + 5 * D + 4 * D) + D > 1e9
    assert macs == 196 * matrices
    assert grown < 200


def test_what_is_not_understood_is_listed():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 9, 1)

        def forward(self, x):
            return torch.fft.fft(self.conv(x))

    found = kr.audit(Odd(), (2, 4, 4))
    assert found.not_understood == (("", "_fft_r2c"),)
    assert "not understood: _fft_r2c" in found.summary()
    assert found.to_frame()["redundancy"].iloc[0] == "unknown"
    assert role_of("no_such_operator") is Role.UNKNOWN


def test_what_a_network_keeps_in_its_containers_stays_real():
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.cache, self.conv = {}, nn.Conv1d(2, 3, 1)

        def forward(self, x):
            if x.shape[-1] not in self.cache:
                self.cache[x.shape[-1]] = torch.linspace(0, 1, x.shape[-1], device=x.device)
            return self.conv(x) + self.cache[x.shape[-1]]

    model = Cached()
    kr.audit(model, (2, 5))
    assert model.cache == {}
    assert model(torch.zeros(1, 2, 5)).shape == (1, 3, 5)


def test_what_a_network_keeps_in_plain_objects_stays_real():
    class Cache:
        def __init__(self):
            self.y, self.inner, self.network = None, [{}], None

    def forward(net, x):
        net.cache.y = net.cache.inner[0]["y"] = net.c(x)
        net.cache.new = net.notes.last = net.cache.y
        return net.cache.y

    cache, notes = Cache(), SimpleNamespace()
    cache.network = cache  # a circle
    model = Net(forward, c=nn.Conv2d(3, 4, 1), cache=cache, notes=notes)
    kr.audit(model, (3, 4, 4))
    assert vars(cache) == {"y": None, "inner": [{}], "network": cache}
    assert vars(notes) == {}
    model(torch.zeros(1, 3, 4, 4))
    assert not cache.new.is_meta


def test_random_states_of_python_and_numpy_stay_as_they_were():
    def forward(net, x):
        return net.c(x) * random.random() * np.random.rand()  # noqa: NPY002

    def drawn():
        return random.random(), np.random.rand()  # noqa: NPY002

    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    expected = drawn()
    random.setstate(before[0])
    np.random.set_state(before[1])  # noqa: NPY002
    kr.audit(Net(forward, c=nn.Conv2d(3, 4, 1)), (3, 4, 4))
    assert drawn() == expected


@pytest.mark.parametrize("given", [None, lambda x: x, nn.ReLU, "resnet50"])
def test_what_is_no_network_is_refused(given):
    with pytest.raises(ModelError, match=r"cannot be audited: a torch\.nn\.Module is needed"):
        kr.audit(given, (3, 4, 4))


@pytest.mark.parametrize("size", [2**40, 2**70])
def test_a_size_beyond_any_tensor_is_refused(size):
    with pytest.raises(ShapeError, match=rf"\(3, {size}, {size}\): fewer than 2"):
        kr.audit(nn.Conv2d(3, 4, 1), (3, size, size))


def test_names_with_control_characters_control_nothing():
    model = nn.Sequential()
    model.add_module("\x1b[31mred\n", nn.Conv2d(3, 4, 3))
    model.add_module("odd\x07", Net(lambda _, x: torch.fft.fft(x)))
    found = kr.audit(model, (3, 4, 4), name="\x1b[2J")
    assert "\x1b" not in found.summary()
    assert r"\x1b[2J: 112 parameters" in found.summary()
    assert r"_fft_r2c in 'odd\x07'" in found.summary()
    with pytest.raises(ForwardError, match=r"module '\\x1b\[31mred\\n'"):
        kr.audit(model, (5, 4, 4))


@pytest.mark.parametrize(
    "norm", [nn.InstanceNorm2d(16), nn.BatchNorm2d(16, track_running_stats=False)]
)
def test_norms_by_statistics_of_the_input_are_not_linear(norm):
    layers = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 16, 1), norm, nn.Conv2d(16, 8, 1)
    assert rows(nn.Sequential(*layers), (2, 6, 6))["redundancy"].tolist() == ["approximate"]


def test_a_square_is_no_scale():
    class Square(nn.Module):
        def forward(self, x):
            return x * x

    layers = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 16, 1), Square(), nn.Conv2d(16, 8, 1)
    assert rows(nn.Sequential(*layers), (2, 6, 6))["redundancy"].tolist() == ["approximate"]


def test_linear_layers_on_tokens_have_the_rank_of_their_features():
    model = nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 16))
    for tokens in (3, 20):
        row = rows(model, (tokens, 8), "chain").iloc[0]
        assert (row["K"], row["R"], row["redundancy"]) == (32, 8, "exact")


def test_a_linear_layer_along_the_width_is_no_pointwise_layer():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 16))
    assert rows(model, (3, 8, 8)).empty


def test_buffers_are_no_parameters_and_a_reshaped_weight_has_the_shape_it_is_used_with():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("blur", torch.ones(16, 1, 3, 3))
            self.flat, self.head = nn.Parameter(torch.ones(8, 27)), nn.Conv2d(16, 4, 1)

        def forward(self, image, features):
            blurred = self.head(F.conv2d(features, self.blur, groups=16))
            return blurred, F.conv2d(image, self.flat.view(8, 3, 3, 3))

    found = kr.audit(Fixed(), [(3, 8, 8), (16, 8, 8)])
    frame = found.to_frame()
    layers = frame[frame["level"] == "layer"]
    assert layers["kind"].tolist() == ["depthwise_conv2d", "conv2d", "conv2d"]
    assert layers["params"].tolist() == [0, 16 * 4 + 4, 8 * 27]
    assert layers["macs"].tolist() == [36 * 16 * 9, 36 * 64, 36 * 8 * 27]
    assert sum(found.shares.values()) == pytest.approx(1)
    assert min(found.shares.values()) >= 0


def test_a_layer_of_a_constant_is_listed():
    class Query(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.project = nn.Parameter(torch.ones(2, 4)), nn.Linear(4, 4)

        def forward(self, x):
            return x @ self.project(self.query).T

    assert ("project", "addmm of a constant") in kr.audit(Query(), (3, 4)).not_understood


def test_a_computed_weight_is_listed():
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 9, 1))
    found = kr.audit(nn.Sequential(normed, nn.ReLU(), nn.Conv2d(9, 3, 1)), (2, 4, 4))
    assert found.not_understood == (("0", "convolution with a reshaped or computed weight"),)
    assert found.parameters == 9 * 2 + 9 + 9 + 9 * 3 + 3
    frame = found.to_frame()
    assert frame["name"].tolist() == ["2"]


def test_refusals_hold_the_path_and_the_shapes():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ForwardError, match=r"module '1' \(Branching\).*control flow on data"):
        kr.audit(nn.Sequential(nn.Conv2d(3, 4, 1), Branching()), (3, 8, 8))
    with pytest.raises(ForwardError, match=r"module '1' \(Linear\) raised.*inputs \(3, 8, 8\)"):
        kr.audit(nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), (3, 8, 8))
    with pytest.raises(ShapeError, match="input shape"):
        kr.audit(nn.Conv2d(3, 4, 1), (3, 0, 8))
    with pytest.raises(ShapeError, match="input shape 3"):
        kr.audit(nn.Conv2d(3, 4, 1), 3)
    with pytest.raises(ForwardError, match=r"parameter '0\.weight' has no shape yet"):
        kr.audit(nn.Sequential(nn.LazyConv2d(4, 1)), (3, 8, 8))


# Reports


def test_the_columns_and_the_json_agree_and_hold_no_nan():
    found = kr.audit(linear_bottleneck(), (3, 8, 8))
    frame = found.to_frame()
    expected = (
        "level name kind K R ratio fan_in_rank params naive covering excess redundancy also macs"
    )
    assert list(frame.columns) == expected.split()
    read = json.loads(found.to_json())
    assert read["parameters"] == found.parameters
    assert len(read["rows"]) == len(frame)
    assert math.isnan(frame["covering"].iloc[0])
    assert read["rows"][0]["covering"] is None
    assert sum(read["shares"].values()) == pytest.approx(1)


def test_the_picture_shows_every_block():
    axis = kr.audit(nn.Sequential(Residual(), Residual()), (32, 8, 8)).plot()
    assert [t.get_text() for t in axis.get_legend().get_texts()] == ["branch only (2)"]


def test_every_value_of_a_walk_has_a_shape_and_one_maker():
    found = walk(Inverted(), [(8, 6, 6)])
    makers = Counter(v for op in found.operations for v in op.outputs)
    assert max(makers.values()) == 1
    flow = Flow(found)
    assert len(flow.layers) == 5
    assert all(layer.target in found.shapes for layer in flow.layers)
