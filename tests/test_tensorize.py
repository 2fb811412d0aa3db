"""A linear network is one tensor: pulled back to the input, and of low rank over its patches."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import tensorly as tl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import krratio as kr
from krratio.errors import KrratioError, MemoryLimitError, NotAPathError, ShapeError
from krratio.theory import patches, tensorize
from random_networks import Residual, ShuffleByHand, networks

EXACT = 1e-12  # norm-wise relative, float64

# torch tells once that "same" padding with an even kernel copies the input: that is no defect.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def images(shape, n=4, dtype=torch.float64):
    return torch.randn(n, *shape, dtype=dtype)


def relative(given, wanted):
    return float((given - wanted).norm() / wanted.norm().clamp_min(1e-300))


def apply(tensorized, x):
    flat = tensorized.input_weight.reshape(-1, math.prod(tensorized.input_shape))
    return (x.flatten(1) @ flat.T).reshape(-1, *tensorized.output_shape) + tensorized.bias


@settings(max_examples=250)
@given(networks())
def test_every_linear_network_is_an_inner_product_with_its_input_weight(drawn):
    net, shape = drawn
    tensorized, x = kr.tensorize(net, shape), images(shape)
    with torch.no_grad():
        y = net(x)
    assert tensorized.input_weight.dtype == torch.float64
    assert tuple(tensorized.input_weight.shape) == (*y.shape[1:], *shape)
    assert tuple(tensorized.bias.shape) == tuple(y.shape[1:])
    assert relative(apply(tensorized, x), y) <= EXACT


@settings(max_examples=150)
@given(networks(residual=False))
def test_every_path_is_a_low_rank_tensor_contracted_with_its_patches(drawn):
    net, shape = drawn
    tensorized, x = kr.tensorize(net, shape), images(shape)
    with torch.no_grad():
        y = net(x)
    z = tensorized.patches(x)
    assert relative(tensorized.contract(z), y) <= EXACT
    weight = torch.from_numpy(tensorized.weight.to_tensor())
    assert tuple(weight.shape) == tensorized.format.modes
    outputs = math.prod(y.shape[1:])
    assert tuple(z.shape[1:]) == (*weight.shape[:-1], weight.shape[-1] // outputs)
    dense = z.flatten(1) @ weight.reshape(-1, outputs)
    assert relative(dense.reshape(y.shape) + tensorized.bias, y) <= EXACT


def stack():
    return nn.Sequential(
        nn.Conv2d(3, 4, (3, 2), stride=(1, 2), bias=False),
        nn.AvgPool2d((2, 1)),
        nn.Conv2d(4, 5, (2, 3), padding=(1, 0)),
        nn.Flatten(),
        nn.Linear(5 * 5 * 4, 6),
    ).double()


def test_the_bonds_of_a_stack_are_its_channel_counts_and_its_modes_the_patch_sizes():
    weight = kr.tensorize(stack(), (3, 11, 13)).weight
    assert isinstance(weight, tl.tt_tensor.TTTensor)
    assert weight.shape == (3 * 6, 6, 5 * 4 * 6)
    assert weight.rank == (1, 4, 5, 1)


@pytest.mark.parametrize("expansion", [2, 5, 20])
def test_a_tucker_block_has_the_ranks_of_its_bottleneck_whatever_the_expansion(expansion):
    net = nn.Sequential(
        nn.Conv2d(4, 2, 1),
        nn.Conv2d(2, 5, (3, 2), stride=(2, 1), padding=(0, 1)),
        nn.BatchNorm2d(5),
        nn.Conv2d(5, expansion, 1),
        nn.AvgPool2d((2, 3)),
        nn.Flatten(),
        nn.Linear(expansion * 2 * 3, 7),
    ).eval()
    weight = kr.tensorize(net, (4, 10, 9)).weight
    assert isinstance(weight, tl.tucker_tensor.TuckerTensor)
    assert weight.shape == (4, 3, 2, 2 * 3 * 7)
    assert weight.core.shape == (2, 3, 2, 5)


def test_two_spatial_convolutions_between_pointwise_ones_are_a_tensor_train():
    net = nn.Sequential(nn.Conv2d(4, 2, 1), nn.Conv2d(2, 3, 3), nn.Conv2d(3, 2, 2))
    net = nn.Sequential(*net, nn.Conv2d(2, 6, 1), nn.Flatten(), nn.Linear(6 * 4, 5))
    weight = kr.tensorize(net, (4, 5, 5)).weight
    assert isinstance(weight, tl.tt_tensor.TTTensor)
    assert weight.shape == (4, 9, 4, 1, 4 * 5)


@pytest.mark.parametrize("expansion", [3, 12])
def test_a_depthwise_block_is_cp_with_its_spatial_modes_merged(expansion):
    net = nn.Sequential(
        nn.Conv2d(4, 3, 1),
        nn.Conv2d(3, 3, (3, 2), groups=3),
        nn.Conv2d(3, expansion, 1),
        nn.AvgPool2d((4, 2)),
        nn.Flatten(),
        nn.Linear(expansion * 2 * 4, 5),
    )
    weight = kr.tensorize(net, (4, 10, 9)).weight
    assert isinstance(weight, tl.cp_tensor.CPTensor)
    assert weight.shape == (4, 6, 2 * 4 * 5)
    assert weight.rank == 3


def test_one_depthwise_convolution_per_mode_is_cp_over_separate_modes():
    net = nn.Sequential(
        nn.Conv3d(4, 3, 1),
        nn.Conv3d(3, 3, (2, 1, 1), groups=3),
        nn.Conv3d(3, 3, (1, 3, 1), groups=3),
        nn.Conv3d(3, 3, (1, 1, 2), groups=3),
        nn.Conv3d(3, 8, 1),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4 * 3, 2),
    )
    weight = kr.tensorize(net, (4, 5, 6, 4)).weight
    assert isinstance(weight, tl.cp_tensor.CPTensor)
    assert weight.shape == (4, 2, 3, 2, 4 * 4 * 3 * 2)


def test_a_fully_connected_network_is_one_core():
    net = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3)).double()
    tensorized = kr.tensorize(net, (7,))
    assert tensorized.weight.shape == (21,)
    product = net[1].weight @ net[0].weight
    assert torch.allclose(tensorized.input_weight, product, atol=1e-14)
    assert tuple(tensorized.patches(images((7,))).shape) == (4, 7)


def test_containers_follow_the_active_tensorly_backend():
    with tl.backend_context("pytorch"):
        weight = kr.tensorize(stack(), (3, 11, 13)).weight
        assert isinstance(weight[0], torch.Tensor)
        assert weight[0].dtype == torch.float64


def test_patches_keep_dtype_and_come_in_any_batch():
    tensorized = kr.tensorize(stack(), (3, 11, 13))
    x = images((3, 11, 13), n=300)
    whole = tensorized.patches(x)
    parts = torch.cat([tensorized.patches(part) for part in x.split(7)])
    assert torch.allclose(whole, parts, rtol=1e-13, atol=1e-15)
    assert tensorized.patches(x[:2].float()).dtype == torch.float32
    assert tensorized.patches(x[:0]).shape == (0, *tensorized.patch_modes)
    pixels = (x[:2] * 40 + 128).to(torch.uint8)
    assert torch.allclose(tensorized.patches(pixels), tensorized.patches(pixels.float()))


def test_patches_are_mean_pooled_unfolded_windows():
    net = nn.Sequential(
        nn.Conv2d(2, 3, (3, 2)), nn.AvgPool2d((2, 3)), nn.Flatten(), nn.Linear(27, 1)
    )
    x = images((2, 8, 10))
    z = kr.tensorize(net, (2, 8, 10)).patches(x)
    windows = nn.functional.unfold(x, (3, 2)).reshape(4, 12, 6, 9)
    pooled = nn.functional.avg_pool2d(windows, (2, 3)).flatten(2)
    assert torch.allclose(z, pooled, atol=1e-14)


def test_later_training_does_not_change_a_tensorized_network():
    net = stack()
    tensorized, before = kr.tensorize(net, (3, 11, 13)), copy.deepcopy(net)
    with torch.no_grad():
        net[0].weight.zero_()
    x = images((3, 11, 13))
    assert relative(apply(tensorized, x), before(x).detach()) <= EXACT


def test_the_network_is_left_as_it_was():
    net = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Dropout()).eval()
    state, rng = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    kr.tensorize(net, (3, 6, 5))
    assert all(torch.equal(state[k], v) for k, v in net.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    assert not net.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_a_float32_network_differs_from_its_tensor_by_its_own_rounding_only():
    torch.manual_seed(3)
    net, shape = stack().float(), (3, 11, 13)
    tensorized, x = kr.tensorize(net, shape), images(shape, n=32)
    assert relative(apply(tensorized, x), net.double()(x).detach()) <= EXACT
    rounding = relative(apply(tensorized, x), net.float()(x.float()).detach().double())
    assert 1e-9 < rounding < 1e-5


def test_what_needs_only_shapes_works_on_the_meta_device():
    net = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64 * 111**2, 9)
    )
    tensorized = kr.tensorize(net.to("meta"), (3, 224, 224))
    assert tensorized.format.modes == (27, 111**2 * 9)
    assert tensorized.format.ranks == (64,)
    assert tensorized.patch_modes == (27, 111**2)
    assert tensorized.patches(torch.zeros(1, 3, 224, 224, device="meta")).is_meta
    for name in ("weight", "input_weight", "bias"):
        with pytest.raises(KrratioError, match=f"{name} needs values.*'0' \\(Conv2d\\).*meta"):
            getattr(tensorized, name)


def test_a_residual_network_has_an_input_weight_but_no_low_rank_weight():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), Residual(nn.Conv2d(4, 4, 3, padding=1), nn.Identity())
    ).double()
    tensorized, x = kr.tensorize(net, (3, 5, 6)), images((3, 5, 6))
    assert relative(apply(tensorized, x), net(x).detach()) <= EXACT
    for attempt in (lambda: tensorized.weight, lambda: tensorized.patches(x)):
        with pytest.raises(NotAPathError, match=r"no path.*'0' \(Conv2d\).*use .input_weight"):
            attempt()


def test_a_reshape_of_the_grid_ends_the_path_with_a_clear_error():
    net = nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 2, 4)).double()
    tensorized, x = kr.tensorize(net, (3, 5, 6)), images((3, 5, 6))
    assert relative(apply(tensorized, x), net(x).detach()) <= EXACT
    with pytest.raises(NotAPathError, match=r"'1' \(Conv1d\) still follows"):
        _ = tensorized.weight


def test_a_shuffle_before_the_first_and_after_the_last_convolution_acts_on_the_bond():
    net = (
        nn.Sequential(
            nn.ChannelShuffle(2),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 6, 2),
            ShuffleByHand(3),
            nn.Flatten(),
        )
        .double()
        .eval()
    )
    tensorized, x = kr.tensorize(net, (4, 4, 5)), images((4, 4, 5))
    assert relative(tensorized.contract(tensorized.patches(x)), net(x).detach()) <= EXACT


def test_shared_weights_are_used_at_each_place():
    conv = nn.Conv2d(3, 3, 3, padding=1)
    net = nn.Sequential(conv, nn.AvgPool2d(2), conv).double()
    tensorized, x = kr.tensorize(net, (3, 8, 7)), images((3, 8, 7))
    assert relative(apply(tensorized, x), net(x).detach()) <= EXACT


def test_memory_limits_name_both_sizes():
    deep = nn.Sequential(*[nn.Conv2d(3, 3, 3) for _ in range(5)])
    tensorized = kr.tensorize(deep, (3, 16, 15))
    with pytest.raises(MemoryLimitError, match=r"takes 10,203,667,200 bytes.*1,000,000"):
        tensorized.patches(images((3, 16, 15), n=240), max_bytes=1_000_000)
    with pytest.raises(MemoryLimitError, match="max_bytes = 1,000;"):
        _ = kr.tensorize(deep, (3, 16, 15), max_bytes=1000).input_weight


def test_shapes_that_do_not_fit_are_refused_with_both_shapes():
    tensorized = kr.tensorize(stack(), (3, 11, 13))
    with pytest.raises(ShapeError, match=r"\(n, 3, 11, 13\), but \(4, 3, 11, 12\)"):
        tensorized.patches(images((3, 11, 12)))
    with pytest.raises(ShapeError, match=r"\(n, 18, 6, 20\), but \(2, 18, 20\)"):
        tensorized.contract(torch.zeros(2, 18, 20, dtype=torch.float64))


def test_input_weight_and_patches_are_two_views_of_one_network():
    """<input_weight, x> = <weight, patches(x)> for every basis image: W pulled back through Z."""
    net = stack()
    tensorized = kr.tensorize(net, (3, 11, 13))
    basis = torch.eye(3 * 11 * 13, dtype=torch.float64).reshape(-1, 3, 11, 13)
    columns = tensorized.contract(tensorized.patches(basis)) - tensorized.bias
    assert np.allclose(columns.T, tensorized.input_weight.flatten(1), atol=1e-13)


@st.composite
def blocks(draw):
    """1×1, spatial or depthwise, 1×1, with what may stand between, and an input shape."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    inputs, rank, channels = draw(st.permutations([3, 4, 6])), draw(st.sampled_from([2, 4, 6])), 7
    design = draw(st.sampled_from(["tucker", "merged", "apart"]))
    middle = {
        "tucker": [nn.Conv2d(rank, rank + 1, (3, 2), padding=(1, 0))],
        "merged": [nn.Conv2d(rank, rank, (3, 2), stride=(2, 1), groups=rank)],
        "apart": [
            nn.Conv2d(rank, rank, (3, 1), groups=rank),
            nn.Conv2d(rank, rank, (1, 2), groups=rank),
        ],
    }[design]
    between = [
        nn.ChannelShuffle(2),
        nn.AvgPool2d((1, 2)),
        nn.BatchNorm2d(rank),
        ShuffleByHand(rank // 2),
    ]
    layers = [nn.Conv2d(inputs[0], rank, 1, bias=draw(st.booleans()))]
    for layer in middle:
        if draw(st.booleans()):
            layers.append(copy.deepcopy(draw(st.sampled_from(between))))
        layers.append(layer)
    width = middle[-1].out_channels
    layers += [nn.ChannelShuffle(width)] if draw(st.booleans()) else []
    layers.append(nn.Conv2d(width, channels, 1))
    shape = (inputs[0], 9, 10)
    for module in layers:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
    return nn.Sequential(*layers).double().eval(), shape


@settings(max_examples=80)
@given(blocks())
def test_the_weight_of_a_block_is_right_whatever_stands_between_its_convolutions(drawn):
    net, shape = drawn
    tensorized, x = kr.tensorize(net, shape), images(shape)
    with torch.no_grad():
        y = net(x)
    weight = torch.from_numpy(tensorized.weight.to_tensor())
    dense = tensorized.patches(x).flatten(1) @ weight.reshape(-1, y[0].numel())
    assert relative(dense.reshape(y.shape) + tensorized.bias, y) <= EXACT


@pytest.mark.parametrize(
    ("conv", "shifted"),
    [
        (nn.Conv1d(3, 2, 4), True),
        (nn.Conv1d(3, 2, 4, stride=2, dilation=2), False),  # its windows start at even places
        (nn.Conv1d(3, 2, 5, padding=2), False),  # its first window is cut off
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_shifted_sums_and_matrix_products_form_the_same_patches(conv, shifted, dtype):
    """Half precision is summed in float32 by products, so it does not take the sums."""
    tensorized = kr.tensorize(nn.Sequential(conv, nn.AvgPool1d(3)), (3, 29))
    patcher = tensorized._patcher
    assert all(shifts is not None for shifts in patcher.shifts) == shifted
    x = images((3, 29)).to(dtype)
    products = dataclasses.replace(patcher, shifts=(None,))(x)
    given = tensorized.patches(x)
    assert given.dtype == dtype
    assert torch.allclose(given.double(), products.double(), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("others", [(), (2,)])
def test_large_position_matrices_are_multiplied_as_sparse_ones(others):
    """Cut-off first windows are no shifts of one, and 700 rows of 700 are too many for dense."""
    kernel = (4, *others)
    conv = (nn.Conv2d if others else nn.Conv1d)(3, 1, kernel, padding=(2, *(0 for _ in others)))
    shape = (3, 700, *others)
    tensorized = kr.tensorize(conv, shape)
    assert tensorized._patcher.shifts[0] is None
    (rows, *_) = tensorized._patcher.rows
    like = torch.zeros(1, dtype=torch.float64)
    assert patches._matrix(rows, like).layout == torch.sparse_csr
    assert patches._matrix(rows[:300], like).layout == torch.strided
    assert patches._matrix(rows, like.half()).layout == torch.strided
    x = images(shape, n=2)
    padded = nn.functional.pad(x, [0, 0] * len(others) + [2, 2])
    windows = padded.unfold(2, 4, 1)
    order = (0, 1, 4, 3, 2) if others else (0, 1, 3, 2)
    z = tensorized.patches(x)
    assert torch.allclose(z.reshape(-1), windows.permute(order).reshape(-1), atol=1e-14)


def test_patches_of_a_long_signal_cost_no_more_than_the_signal():
    """The composed position matrix of 100,000 samples would take 80 GB if it were dense."""
    net = nn.Sequential(nn.Conv1d(1, 2, 16, stride=4), nn.AvgPool1d(4)).to("meta")
    x = images((1, 100_000), n=2)
    z = kr.tensorize(net, (1, 100_000)).patches(x)
    windows = x.unfold(2, 16, 4)[:, 0, : 6249 * 4].reshape(2, 6249, 4, 16).mean(2).transpose(1, 2)
    assert torch.allclose(z, windows, atol=1e-14)


def test_patches_and_contract_pass_gradients_and_complex_numbers():
    tensorized = kr.tensorize(stack(), (3, 11, 13))
    x = images((3, 11, 13)).requires_grad_()
    y = tensorized.contract(tensorized.patches(x))
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(slope, tensorized.input_weight.sum(0).expand_as(slope), atol=1e-12)
    x = x.detach()
    mixed = tensorized.patches(x * (1 + 2j))
    assert torch.allclose(mixed, tensorized.patches(x) * (1 + 2j), atol=1e-13)
    assert tensorized.contract(tensorized.patches(x[:0])).shape == (0, 6)
    ones = torch.ones(2, *tensorized.patch_modes, dtype=torch.int64)
    assert torch.allclose(tensorized.contract(ones), tensorized.contract(ones.float()))


def counting(monkeypatch, place, name):
    """Note how many rows each call of a function is given as its last or only tensor."""
    whole, taken = getattr(place, name), []

    def counted(*given):
        taken.append(next(len(one) for one in given if isinstance(one, torch.Tensor)))
        return whole(*given)

    monkeypatch.setattr(place, name, counted)
    return taken


def test_the_weights_of_the_input_are_pulled_back_as_many_at_a_time_as_memory_allows(monkeypatch):
    net = nn.Sequential(nn.Conv1d(1, 2, 2), nn.Flatten(), nn.Linear(6, 5)).double()
    whole = kr.tensorize(net, (1, 4)).input_weight
    taken = counting(monkeypatch, tensorize, "pull_back")
    each = 4 * 8 * 6  # four values of the widest layer in float64
    for most, parts in ((3 * each, [3, 2]), (3 * each - 1, [2, 2, 1]), (10**6, [5])):
        taken.clear()
        assert torch.equal(kr.tensorize(net, (1, 4), max_bytes=most).input_weight, whole)
        assert taken == parts


def test_images_are_taken_as_many_at_a_time_as_fit(monkeypatch):
    net = nn.Sequential(nn.Conv1d(3, 2, 4), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(4, 3)).double()
    tensorized, x = kr.tensorize(net, (3, 8)), images((3, 8), n=5)
    z = tensorized.patches(x)
    y = tensorized.contract(z)
    along = counting(monkeypatch, patches, "_along_modes")
    monkeypatch.setattr(patches, "_CHUNK_BYTES", 2 * 8 * 3 * 8)
    assert torch.equal(tensorized.patches(x), z)
    contracted = counting(monkeypatch, type(tensorized), "_contract")
    monkeypatch.setattr(tensorize, "_CHUNK_BYTES", 2 * 8 * (12 * 2) * 2)
    assert torch.allclose(tensorized.contract(z), y, rtol=0, atol=1e-15)
    assert along == contracted == [2, 2, 1]


def test_the_memory_limit_counts_the_bytes_of_the_result():
    tensorized = kr.tensorize(stack(), (3, 11, 13))
    pixels = torch.zeros(2, 3, 11, 13, dtype=torch.uint8)
    with pytest.raises(MemoryLimitError, match=f"takes {4 * 2 * 18 * 6 * 20:,} bytes"):
        tensorized.patches(pixels, max_bytes=4 * 2 * 18 * 6 * 20 - 1)
