"""The functions of a network as a least-squares class, against automatic differentiation."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import krratio as kr
from krratio.errors import KrratioError, MemoryLimitError, ShapeError
from krratio.experiments.draws import Draws
from krratio.experiments.network_chart import NetworkChart
from krratio.experiments.network_fit import network_chart
from krratio.experiments.seeds import torch_stream


def normal(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


class Tied(nn.Module):
    """One convolution used twice, a skip, and a frozen BatchNorm between."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3, padding=1, bias=True)
        self.norm = nn.BatchNorm1d(2)
        self.head = nn.Sequential(nn.AvgPool1d(2), nn.Flatten(), nn.Linear(6, 2))

    def forward(self, x):
        y = self.norm(self.conv(x))
        return self.head(self.conv(y) - 0.5 * x)


def tied():
    torch.manual_seed(0)
    net = Tied().double().eval()
    net.norm.running_mean += 0.3
    net.norm.running_var *= 2.0
    return net, (2, 6)


def grouped():
    torch.manual_seed(1)
    layers = nn.Conv2d(4, 4, (2, 1), groups=2), nn.Conv2d(4, 6, 1), nn.AvgPool2d((1, 2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(12, 3)).double(), (4, 3, 2)


def designs(shape, outputs, draws=3, seed=0):
    size = math.prod(shape)
    images = normal(seed, 4 * size, size)
    gram = images.T @ images / len(images)
    cross = normal(seed + 1, draws, size, outputs)
    total = torch.full((draws, outputs), 1e4, dtype=torch.float64)
    return Draws(gram, cross, total, shape, 1)


@pytest.mark.parametrize("make", [tied, grouped])
def test_weights_and_derivatives_are_those_of_the_network(make):
    net, shape = make()
    reference = kr.tensorize(net, shape).input_weight.flatten(1)  # (T, D)
    draws = designs(shape, len(reference))
    chart, theta = network_chart(draws, net)
    torch.testing.assert_close(chart.weight(theta[None])[0], reference, rtol=1e-12, atol=1e-13)

    rows = torch.tensor([1, 2])
    points = theta + 0.3 * normal(4, 2, chart.size)
    found = chart.expand(points, rows)
    for i, row in enumerate(rows):

        def value(z, i=i, row=row):
            moved = points[i] + found.lift[i] @ z
            return chart.value(moved[None], row[None])[0]

        zero = torch.zeros(found.lift.shape[2], dtype=torch.float64)
        gradient = torch.func.grad(value)(zero)
        hessian = torch.func.jacrev(torch.func.grad(value))(zero)
        assert found.value[i] == pytest.approx(float(value(zero)), rel=1e-12)
        torch.testing.assert_close(found.gradient[i], gradient, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.hessian[i], hessian, rtol=1e-8, atol=1e-8)
    jacobian = torch.func.jacrev(lambda p: chart.weight(p[None])[0].flatten())(points[0])
    torch.testing.assert_close(chart.jacobian(points[:1])[0], jacobian, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("make", [tied, grouped])
def test_coordinates_are_as_many_as_the_dimension_and_the_norm_is_the_projection(make):
    net, shape = make()
    outputs = len(kr.tensorize(net, shape).input_weight)
    draws = designs(shape, outputs)
    chart, theta = network_chart(draws, net)
    assert chart.width == int(kr.intrinsic_dimension(net, shape))
    row = torch.tensor([2])
    found = chart.expand(theta[None], row)
    slope = chart.weight(theta[None])[0] @ draws.gram - draws.cross[2].T
    basis = torch.linalg.svd(chart.jacobian(theta[None])[0], full_matrices=False)[0]
    expected = (basis[:, : chart.width].T @ slope.flatten()).norm() / draws.cross[2].norm()
    assert float(found.norm(torch.tensor([0]))[0]) == pytest.approx(float(expected), rel=1e-8)


def small(K=3):
    layers = nn.Conv1d(3, 2, 2, bias=False), nn.Conv1d(2, K, 1, bias=False), nn.AvgPool1d(2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2 * K, 1, bias=False)).double(), (3, 5)


def test_a_linear_class_is_fitted_in_one_step():
    layer = nn.Linear(7, 2, bias=False).double()
    draws = designs((7,), 2)
    fits = kr.fit(draws, layer, starts=2)
    best = torch.linalg.solve(draws.gram, draws.cross)
    torch.testing.assert_close(fits.weight[:, :, 0], best, rtol=1e-9, atol=1e-10)
    assert bool(fits.converged.all())
    assert fits.share_of_starts_at_best.tolist() == [1.0] * 3


def test_the_class_of_a_network_is_that_of_its_format():
    """Windows side by side: fitting the network in pixels is fitting the matrix in patches."""
    torch.manual_seed(2)
    layers = nn.Conv1d(3, 2, 2, stride=2, bias=False), nn.Flatten()
    net = nn.Sequential(*layers, nn.Linear(2 * 4, 1, bias=False)).double()
    shape = (3, 8)
    images, outputs = normal(1, 200, *shape), normal(2, 200, 1)
    pixels = kr.Statistics.from_batches([(images[..., None], outputs)])
    patches = images.reshape(200, 3, 4, 2).permute(0, 1, 3, 2)  # n, C, l, P
    by_patches = kr.Statistics.from_batches([(patches, outputs)])
    one = kr.fit(pixels, net, starts=20)
    two = kr.fit(by_patches, "matrix", 2, starts=20)
    assert one.format == "network"
    assert one.loss == pytest.approx(two.loss, rel=1e-9)
    W = one.weight.reshape(3, 4, 2).permute(0, 2, 1).reshape(6, 4, 1)
    torch.testing.assert_close(W, two.weight, rtol=1e-6, atol=1e-8)


def test_zero_starts_begin_at_the_present_weights_and_leave_them_alone():
    net, shape = small()
    before = [p.clone() for p in net.parameters()]
    chart, theta = network_chart(designs(shape, 1), net)
    truth = chart.weight(theta[None])[0].T[:, None]
    images = normal(5, 400, 15)
    draws = Draws.gaussian(
        images.T @ images / 400,
        truth,
        samples=400,
        noise=0.0,
        draws=1,
        modes=shape,
        generator=torch_stream(0, "none"),
    )
    fits = kr.fit(draws, net, starts=0)
    assert fits.origin == ("present weights",)
    assert int(fits.iterations[0]) == 1
    torch.testing.assert_close(fits.parameters[0], theta)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_random_starts_need_no_values_and_do_not_depend_on_their_number():
    net, shape = small()
    draws = designs(shape, 1)
    few = kr.fit(draws, net.to("meta"), starts=2, seed=3)
    many = kr.fit(draws, small()[0].to("meta"), starts=4, seed=3)
    torch.testing.assert_close(few.losses, many.losses[:, :2], rtol=1e-9, atol=0)
    assert bool((many.loss <= few.loss + 1e-12).all())


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_wider_expansion_cannot_fit_better(seed):
    draws = designs(small()[1], 1, seed=seed)
    losses = [kr.fit(draws, small(K)[0], starts=12).loss for K in (2, 6)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-6)


def test_what_cannot_be_fitted_is_refused():
    net, shape = small()
    with pytest.raises(ShapeError, match="has 1 outputs, the statistics 2"):
        kr.fit(designs(shape, 2), net)
    with pytest.raises(ShapeError, match="have 5 positions"):
        kr.fit(dataclasses.replace(designs(shape, 1), modes=(3,), positions=5), net)
    with pytest.raises(
        ValueError, match="takes no ranks, no ridge and no exchanges; given ranks=2"
    ):
        kr.fit(designs(shape, 1), net, 2)
    with pytest.raises(KrratioError, match="starts=0"):
        kr.fit(designs(shape, 1), small()[0].to("meta"), starts=0)
    with pytest.raises(KrratioError, match="device='meta'"):
        kr.fit(designs((2, 6), 2), tied()[0].to("meta"))
    graph = kr.trace(net, shape)
    own = {id(p) for p in net.parameters()}
    with pytest.raises(MemoryLimitError, match=r"above max_bytes = 100;"):
        NetworkChart(designs(shape, 1), graph, own, max_bytes=100)


def test_what_no_data_can_tell_is_refused():
    net, shape = small()
    d = int(kr.intrinsic_dimension(net, shape))
    X = normal(0, 2, d - 1, math.prod(shape))
    with pytest.raises(ValueError, match=f"has {d} dimensions, of which the samples see {d - 1}"):
        kr.fit(Draws.from_data(X, X[..., :1], modes=shape), net)
    with pytest.raises(ValueError, match="exchanges=3"):
        kr.fit(designs(shape, 1), net, exchanges=3)
    frozen = nn.Sequential(nn.AvgPool1d(2), nn.Flatten()).double()
    with pytest.raises(ValueError, match="no free weight"):
        kr.fit(designs((1, 4), 2), frozen)


def depthwise():
    convs = nn.Conv1d(3, 2, 1, bias=False), nn.Conv1d(2, 2, 3, stride=3, groups=2, bias=False)
    return nn.Sequential(*convs, nn.Flatten(), nn.Linear(6, 1, bias=False)).double(), (3, 9)


def test_cancellation_of_a_depthwise_block_is_that_of_its_cp_terms():
    net, shape = depthwise()
    chart = network_chart(designs(shape, 1), net)[0]
    theta = chart.random(2, torch_stream(0, "cancellation"))
    for one, found in zip(theta, chart.cancellation(theta), strict=True):
        A, B, C = one[:6].reshape(2, 3), one[6:12].reshape(2, 3), one[12:].reshape(2, 3)
        terms = torch.einsum("rc,rl,rp->rcpl", A, B, C)
        expected = terms.flatten(1).norm(dim=1).sum() / terms.sum(0).norm()
        torch.testing.assert_close(found, expected)
    dense, shape = small()
    chart = network_chart(designs(shape, 1), dense)[0]
    assert chart.cancellation(chart.random(2, torch_stream(0, "dense"))).tolist() == [1, 1]


def test_a_network_without_a_best_fit_is_reported_as_divergent():
    # a⊗a⊗b + a⊗b⊗a + b⊗a⊗a is a limit of rank-2 tensors and has rank 3 (de Silva and Lim 2008).
    net, shape = depthwise()
    tensor = torch.zeros(3, 3, 3).double()
    tensor[0, 0, 1] = tensor[0, 1, 0] = tensor[1, 0, 0] = 1.0
    weight = tensor.permute(0, 2, 1).reshape(27, 1, 1)  # channel, position, offset
    options = {"samples": 1000, "draws": 1, "modes": shape, "generator": torch_stream(3, "border")}
    fits = kr.fit(Draws.gaussian(torch.eye(27).double(), weight, noise=0.0, **options), net)
    assert fits.diverged.all()
    assert not fits.converged.any()
    member = chart_weight(net, shape)
    fits = kr.fit(Draws.gaussian(torch.eye(27).double(), member, noise=0.0, **options), net)
    assert fits.converged.all()
    assert not fits.diverged.any()


def chart_weight(net, shape):
    chart = network_chart(designs(shape, 1), net)[0]
    return chart.weight(chart.random(1, torch_stream(5, "member")))[0].mT[:, None]


def test_a_start_at_a_singular_member_is_no_minimum_unless_it_fits_perfectly():
    """All zeros, or one channel of zeros: the descent cannot see what it misses."""
    net = nn.Sequential(nn.Conv1d(6, 2, 1, bias=False), nn.Flatten(), nn.Linear(8, 1, bias=False))
    net = net.double()
    X = normal(0, 300, 24)
    truth = torch.einsum("cr,rp->cp", normal(1, 6, 2), normal(2, 2, 4)).reshape(24, 1)
    draws = Draws.from_data(X, (X @ truth + 0.1 * normal(3, 300, 1))[None], modes=(6, 4))
    best = kr.fit(draws, net, starts=4)
    assert best.converged.all()
    for first in (0, 1):  # no channel is left, or one
        with torch.no_grad():
            net[0].weight[first:] = 0
            net[2].weight[:, 4 * first :] = 0
        stuck = kr.fit(draws, net, starts=0)
        assert float(stuck.loss) > 2 * float(best.loss)
        assert not stuck.converged.any()
        nn.init.normal_(net[0].weight)
        nn.init.normal_(net[2].weight)
    low = normal(4, 6, 1) @ normal(5, 1, 4)
    with torch.no_grad():
        net[0].weight[...] = torch.cat([normal(4, 6, 1).T, torch.zeros(1, 6)])[..., None]
        net[2].weight[...] = torch.cat([normal(5, 1, 4), torch.zeros(1, 4)]).reshape(1, 8)
    exact = Draws.from_data(X, (X @ low.reshape(24, 1))[None], modes=(6, 4))
    assert kr.fit(exact, net, starts=0).converged.all()


def test_a_minimum_on_a_fold_of_the_class_has_converged():
    """Products (a, b, c) of two filters of length 2 have b² ≥ 4ac: their roots are real.

    What lies beyond is fitted on the edge, at a double root, where ∂W/∂θ loses rank.
    """
    convs = (nn.Conv1d(1, 1, 2, bias=False) for _ in range(2))
    net, shape = nn.Sequential(*convs, nn.Flatten()).double(), (1, 3)
    chart = network_chart(designs(shape, 1), net)[0]
    assert chart.width == 3
    outside = torch.tensor([1.0, 0.0, 1.0]).double().reshape(3, 1, 1)  # x² + 1 has no real root
    options = {"samples": 100, "noise": 0.0, "draws": 1, "modes": shape}
    generator = torch_stream(0, "fold")
    fits = kr.fit(
        Draws.gaussian(torch.eye(3).double(), outside, **options, generator=generator), net
    )
    assert fits.converged.all()
    assert not chart.regular(fits.parameters).any()
    a, b, c = fits.weight.flatten().tolist()
    assert b**2 == pytest.approx(4 * a * c, rel=1e-6)
    assert float(fits.loss) > 0.1
