"""From a weight tensor to a network and back: the same tensor."""

import numpy as np
import pytest
import tensorly as tl
import torch
from tensorly.random import random_cp, random_tt, random_tucker

import krratio as kr
from krratio.errors import NonFiniteError, ShapeError

RNG = np.random.RandomState(7)  # tensorly's generators take no newer kind

CASES = {
    "one convolution": (
        random_tt((2 * 6, 3 * 4 * 2), rank=(1, 5, 1), random_state=RNG),
        {
            "input_shape": (2, 9, 8),
            "kernel": (3, 2),
            "stride": (2, 1),
            "pool": (1, 2),
            "outputs": 2,
        },
        (4, 3),
    ),
    "three convolutions in 1D": (
        random_tt((2 * 3, 2, 4, 3 * 5), rank=(1, 4, 3, 2, 1), random_state=RNG),
        {
            "input_shape": (2, 30),
            "kernel": [(3,), (2,), (4,)],
            "stride": [(2,), (1,), (1,)],
            "pool": [(1,), (2,), (1,)],
            "outputs": 5,
        },
        (3,),
    ),
    "Tucker, spatial modes too": (
        random_tucker((3, 3, 2, 4 * 3 * 5), rank=(2, 2, 1, 4), random_state=RNG),
        {
            "input_shape": (3, 10, 7),
            "kernel": (3, 2),
            "stride": (2, 1),
            "pool": (1, 2),
            "outputs": 5,
        },
        (4, 3),
    ),
    "CP, spatial modes merged": (
        random_cp((3, 6, 4 * 3 * 5), rank=4, random_state=RNG),
        {
            "input_shape": (3, 10, 7),
            "kernel": (3, 2),
            "stride": (2, 1),
            "pool": (1, 2),
            "outputs": 5,
        },
        (4, 3),
    ),
    "CP in 3D, spatial modes apart": (
        random_cp((2, 3, 2, 2, 2 * 3 * 2 * 3), rank=3, random_state=RNG),
        {
            "input_shape": (2, 6, 4, 5),
            "kernel": (3, 2, 2),
            "stride": (2, 1, 1),
            "pool": (1, 1, 2),
            "outputs": 3,
        },
        (2, 3, 2),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_tensor_comes_back(case):
    weight, geometry, grid = CASES[case]
    net = kr.from_tensor(weight, **geometry)
    tensorized = kr.tensorize(net, geometry["input_shape"])
    assert type(tensorized.weight) is type(weight)
    assert tensorized.path.grid[1:] == grid
    given, wanted = tensorized.weight.to_tensor(), weight.to_tensor()
    assert np.linalg.norm(given - wanted) <= 1e-13 * np.linalg.norm(wanted)


def test_the_weights_of_a_cp_tensor_count():
    weight = random_cp((3, 2, 5), rank=2, random_state=RNG)
    scaled = tl.cp_tensor.CPTensor((np.array([3.0, -2.0]), weight.factors))
    net = kr.from_tensor(scaled, input_shape=(3, 6), kernel=2)
    again = kr.tensorize(net, (3, 6)).weight
    assert np.allclose(again.to_tensor(), scaled.to_tensor(), atol=1e-14)


def test_tensors_of_the_pytorch_backend_are_taken():
    with tl.backend_context("pytorch"):
        weight = random_tt((4, 10), rank=(1, 2, 1), random_state=RNG)
        net = kr.from_tensor(weight, input_shape=(2, 6), kernel=2, outputs=2)
        again = kr.tensorize(net, (2, 6)).weight.to_tensor()
        assert torch.allclose(again, weight.to_tensor().double(), atol=1e-14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"outputs": 4},
            r"last mode of the tensor is 24, but 12 positions \(4, 3\) times 4 outputs make 48",
        ),
        ({"outputs": 1}, r"is 24, but 12 positions \(4, 3\) times 1 outputs make 12"),
        ({"kernel": (5, 2)}, r"mode 1 of the tensor is 12, not a multiple of the kernel volume 10"),
        ({"kernel": (3, 0)}, "not a positive integer or one for each of 2"),
        ({"kernel": [(3, 2), (1, 1)]}, "has 2 entries for 1 convolutions"),
        ({"input_shape": (2,)}, "N = 1, 2, 3"),
        ({"input_shape": (3, 9, 8)}, r"takes \(2, d_1, d_2\), but \(3, 9, 8\)"),
    ],
)
def test_a_geometry_that_does_not_fit_the_tensor_is_refused(change, message):
    weight, geometry, _ = CASES["one convolution"]
    with pytest.raises(ShapeError, match=message):
        kr.from_tensor(weight, **(geometry | change))


def test_spatial_modes_must_be_those_of_the_kernel():
    weight, geometry, _ = CASES["Tucker, spatial modes too"]
    with pytest.raises(
        ShapeError, match=r"spatial modes of the tensor are \(3, 2\), but the kernel is \(2, 3\)"
    ):
        kr.from_tensor(weight, **(geometry | {"kernel": (2, 3)}))


def test_a_plain_array_is_refused_with_the_way_to_decompose_it():
    with pytest.raises(
        TypeError, match=r"ndarray; give a tensorly TTTensor.*tensorly\.decomposition"
    ):
        kr.from_tensor(np.zeros((4, 3)), input_shape=(2, 6), kernel=2)


def test_a_cp_tensor_of_rank_one_comes_back_as_the_tucker_tensor_that_it_is():
    weight = random_cp((3, 6, 20), rank=1, random_state=RNG)
    net = kr.from_tensor(weight, input_shape=(3, 6, 6), kernel=(3, 2), outputs=1)
    again = kr.tensorize(net, (3, 6, 6)).weight
    assert again.shape == (3, 3, 2, 20)
    assert np.allclose(again.to_tensor().reshape(3, 6, 20), weight.to_tensor(), atol=1e-14)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1j])
def test_factors_that_are_not_finite_and_real_are_refused(bad):
    weight, geometry, _ = CASES["one convolution"]
    cores = [np.array(core) for core in weight]
    cores[-1] = cores[-1] * bad
    with pytest.raises(NonFiniteError, match="complex, NaN or infinite"):
        kr.from_tensor(tl.tt_tensor.TTTensor(cores), **geometry)


def test_making_a_network_leaves_the_random_state_alone():
    weight, geometry, _ = CASES["one convolution"]
    before = torch.get_rng_state()
    kr.from_tensor(weight, **geometry)
    assert torch.equal(before, torch.get_rng_state())
