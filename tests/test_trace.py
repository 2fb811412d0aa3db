"""Tracing: what is understood becomes specs, what is not is named with its path and a way out."""

import numpy as np
import pytest
import torch
from torch import nn

import krratio as kr
from audit_models import Net
from krratio.errors import NonFiniteError, ShapeError, UnsupportedModuleError
from krratio.networks.graph import INPUT
from krratio.networks.layers import KINDS, AveragePool, Conv, Linear, Placement, Reindex, Sum
from krratio.networks.trace import trace
from krratio.theory.adjoint import ADJOINT, FORWARD, pull_back, run


class Body(Net):
    """A module whose forward is the given function of itself and x."""


@pytest.mark.parametrize("table", [FORWARD, ADJOINT], ids=["FORWARD", "ADJOINT"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_layer_kind_has_a_row_in_every_table(kind, table):
    assert kind in table


def test_a_sequential_is_a_chain_with_weights_by_reference():
    net = nn.Sequential(nn.Conv2d(2, 3, 2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 4))
    graph = trace(net, (2, 5, 6))
    assert [type(n.layer) for n in graph.nodes] == [Conv, AveragePool, Reindex, Linear]
    assert [n.inputs for n in graph.nodes] == [(INPUT,), (0,), (1,), (2,)]
    assert graph.nodes[0].layer.weight is net[0].weight
    assert graph.output_shape == (4,)


def test_identities_leave_no_node():
    graph = trace(nn.Sequential(nn.Identity(), nn.Dropout(0.5)).eval(), (2, 5))
    assert graph.nodes == ()
    assert graph.output_shape == (2, 5)


def test_layers_that_do_not_reach_the_output_are_dropped():
    net = Body(
        lambda m, x: (m.unused(x), m.used(x))[1], used=nn.Linear(3, 2), unused=nn.Linear(3, 9)
    )
    assert [n.name for n in trace(net, (3,)).nodes] == ["'used' (Linear)"]


def test_a_shuffle_by_hand_is_one_channel_permutation():
    def shuffle(_, x):
        n, c, d = x.shape
        return x.view(n, 2, c // 2, d).transpose(1, 2).contiguous().view(n, c, d)

    (node,) = trace(Body(shuffle), (6, 5)).nodes
    assert node.layer.channel_permutation().tolist() == [0, 3, 1, 4, 2, 5]


def test_sums_differences_and_multiples_become_weighted_sums():
    net = Body(lambda m, x: 2 * x - m.conv(x) / 4 + (-x), conv=nn.Conv1d(3, 3, 1))
    graph = trace(net, (3, 5)).double()
    assert {type(n.layer) for n in graph.nodes} == {Conv, Sum}
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    assert torch.allclose(run(graph, x), net.double()(x), atol=1e-14)


def test_in_place_sums_are_followed():
    def forward(module, x):
        y = module.conv(x)
        y += x
        y *= 3
        return module.conv(y)

    net = Body(forward, conv=nn.Conv1d(3, 3, 1)).double()
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    assert torch.allclose(run(trace(net, (3, 5)), x), net(x), atol=1e-13)


def test_functional_calls_and_slices_need_no_module():
    def forward(module, x):
        a, b = nn.functional.conv1d(x, module.conv.weight, stride=2).chunk(2, dim=1)
        return a - b[:, [1, 0]]

    net = Body(forward, conv=nn.Conv1d(3, 4, 2)).double()
    graph = trace(net, (3, 7))
    x = torch.randn(2, 3, 7, dtype=torch.float64)
    assert torch.allclose(run(graph, x), net(x), atol=1e-14)


def test_the_pull_back_is_the_adjoint_of_the_run():
    net = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2, bias=False), nn.Flatten())
    graph = trace(net, (2, 6, 7)).double()
    x = torch.randn(3, 2, 6, 7, dtype=torch.float64)
    y = torch.randn(5, *graph.output_shape, dtype=torch.float64)
    left = run(graph, x) @ y.T
    right = x.flatten(1) @ pull_back(graph, y).flatten(1).T
    assert torch.allclose(left, right, atol=1e-13)


UNSUPPORTED = {
    "relu": (
        nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 2), nn.ReLU())),
        r"'0\.1' \(ReLU\).*not linear.*nn\.Identity",
    ),
    "max pooling": (
        nn.MaxPool2d(2),
        r"MaxPool2d \(the model itself\).*max_pool2d: it is not linear",
    ),
    "train-mode BatchNorm": (
        nn.BatchNorm2d(3).train(),
        r"statistics of the batch.*model\.eval\(\)",
    ),
    "BatchNorm without statistics": (
        nn.BatchNorm2d(3, track_running_stats=False).eval(),
        "track_running_stats",
    ),
    "train-mode Dropout": (
        nn.Sequential(nn.Dropout(0.2)).train(),
        r"'0' \(Dropout\).*random.*model\.eval\(\)",
    ),
    "circular padding": (
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
        "padding_mode='zeros'",
    ),
    "transposed convolution": (nn.ConvTranspose2d(3, 4, 2), "conv_transpose2d: it has no rule"),
    "instance norm": (nn.InstanceNorm2d(3), "instance_norm: it is not linear"),
    "added constant": (
        Body(lambda _, x: x + 1.5),
        "adds a constant of type float; make it the bias",
    ),
    "added tensor": (Body(lambda _, x: x + torch.ones(6, 5)), "adds a constant of type Tensor"),
    "product of two features": (Body(lambda _, x: x * x), "multiplies two tensors that depend"),
    "attention": (Body(lambda _, x: x @ x.transpose(2, 3)), "matmul: it is not linear"),
    "division by the input": (Body(lambda _, x: 1 / x), "not linear|has no rule|divides"),
    "weights from the input": (
        Body(lambda _, x: nn.functional.conv2d(x, x[:, :, :1, :1])),
        "weight depends on",
    ),
    "two outputs": (Body(lambda _, x: (x, x)), "returns tuple where one tensor"),
    "constant output": (Body(lambda *_: torch.zeros(2)), "one tensor that depends on the input"),
    "swapping the batch": (
        Body(lambda m, x: m.f(x.flip(0)), f=nn.Flatten()),
        "mixes images of a batch",
    ),
    "a factor that is not finite": (Body(lambda _, x: x * float("nan")), "multiplies by nan"),
    "division by zero": (Body(lambda _, x: x / 0), "by zero"),
    "the batch size as a factor": (
        Body(lambda _, x: x / len(x)),
        "another one for 2 images than for 3",
    ),
    "random factors": (Body(lambda _, x: x * float(torch.rand(()))), "draws random numbers"),
    "'same' with a stride": (
        Body(
            lambda m, x: nn.functional.conv2d(x, m.c.weight, None, 2, "same"), c=nn.Conv2d(3, 2, 3)
        ),
        "no meaning with a stride",
    ),
    "complex weights": (nn.Conv2d(3, 2, 2, dtype=torch.complex64), r"'weight' is torch\.complex64"),
    "integer weights": (
        Body(lambda _, x: nn.functional.conv2d(x, torch.ones(1, 3, 2, 2, dtype=torch.int64))),
        "torch.int64",
    ),
    "lazy layers": (nn.LazyConv2d(3, 2), "'weight' is not initialized"),
    "changing a viewed tensor": (
        Body(lambda m, x: _change_viewed(m.conv(x)), conv=nn.Conv2d(3, 3, 1)),
        "changes in place a tensor that has views",
    ),
}


def _change_viewed(y):
    flat = y.view(2, -1)
    y += y.clone()
    return flat


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_cannot_be_expressed_is_refused_by_name(case):
    net, message = UNSUPPORTED[case]
    with pytest.raises(UnsupportedModuleError, match=message):
        trace(net, (3, 6, 5))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            nn.Sequential(nn.Conv2d(4, 2, 3)),
            r"'0' \(Conv2d\).*\(2, 4, 3, 3\) takes \(4, d_1, d_2\), but \(3, 6, 5\)",
        ),
        (nn.Sequential(nn.Conv1d(3, 2, 3)), r"takes \(3, d_1\), but \(3, 6, 5\)"),
        (nn.Sequential(nn.Conv2d(3, 2, 7)), "window of 7 is wider than the .* input of 6"),
        (
            nn.Sequential(nn.AvgPool2d(2), nn.AvgPool2d(2), nn.AvgPool2d(2)),
            r"'2' \(AvgPool2d\).*does not fit",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(80, 2)), r"takes \(80,\), but \(90,\) comes in"),
        (nn.Sequential(nn.Linear(5, 2)), r"flat features \(5,\), but \(3, 6, 5\).*nn\.Flatten"),
        (nn.Sequential(nn.BatchNorm2d(7).eval()), "normalizes 7 channels"),
        (nn.AdaptiveAvgPool2d((2, 0)), "at least 1"),
        (
            Body(lambda m, x: x + m.c(x), c=nn.Conv2d(3, 3, 2)),
            r"equal shapes, but \(3, 6, 5\) and \(3, 5, 4\)",
        ),
        (Body(lambda m, x: m.f(x.reshape(1, -1)), f=nn.Linear(180, 2)), r"reshaped to \(1, 180\)"),
        (
            Body(lambda m, x: m.f(x.view(-1, 30)), f=nn.Linear(30, 2)),
            r"2 images of shape \(3, 6, 5\)",
        ),
        (nn.AvgPool1d(2), r"pools 1 spatial modes, but \(3, 6, 5\)"),
        (nn.AdaptiveAvgPool3d(1), r"pools 3 spatial modes, but \(3, 6, 5\)"),
        (nn.AvgPool2d(2, padding=2), "more than half"),
        (Body(lambda _, x: nn.functional.avg_pool2d(x, 2, 0)), "stride 0 is not 2 integers"),
        (
            Body(lambda _, x: x.view(2, 7, -1)),
            r"Body \(the model itself\).*input_shape \(3, 6, 5\)",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused_with_the_layer(net, message):
    with pytest.raises(ShapeError, match=message):
        trace(net, (3, 6, 5))


@pytest.mark.parametrize(
    "shape", [(), (3, 0), (3, 2.0), (1, 2, 3, 4, 5), (-1,), (True, 3), 4, None]
)
def test_an_input_shape_is_a_few_positive_integers(shape):
    with pytest.raises(ShapeError, match="all positive integers and without the batch"):
        trace(nn.Identity(), shape)


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "1.running_var"])
def test_a_weight_that_is_not_finite_is_refused_by_name(name):
    net = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4)).eval()
    with torch.no_grad():
        net.state_dict()[name].view(-1)[1] = float("nan")
    with pytest.raises(NonFiniteError, match=f"'{name}' holds 1 values"):
        trace(net, (3, 6, 5))


def test_a_failed_trace_leaves_no_hook_behind():
    net = nn.Sequential(nn.Conv2d(3, 4, 2), nn.ReLU())
    with pytest.raises(UnsupportedModuleError):
        trace(net, (3, 6, 5))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_sizes_may_be_of_any_integer_type():
    shape = trace(nn.AvgPool2d(np.int64(2)), torch.Size([3, 6, 5])).output_shape
    assert shape == trace(nn.AvgPool2d(2), np.array([3, 6, 5]).tolist()).output_shape == (3, 3, 2)


def test_a_batchnorm_whose_scale_is_not_finite_is_refused():
    net = nn.Sequential(nn.BatchNorm2d(3)).eval()
    net[0].running_var[1] = -1
    with pytest.raises(
        NonFiniteError, match=r"'0' \(BatchNorm2d\).*running variance.*not positive"
    ):
        trace(net, (3, 6, 5))


class Noted(nn.Module):
    """A module that changes itself and draws random numbers when it runs."""

    def __init__(self):
        super().__init__()
        self.steps, self.last = 0, None
        self.register_buffer("count", torch.zeros(2))

    def forward(self, x):
        self.steps += 1
        self.last = x
        self.count += 1
        torch.rand(3)
        return x


@pytest.mark.parametrize("fails", [False, True])
def test_a_module_that_changes_itself_is_put_back(fails):
    noted = Noted()
    norm = nn.BatchNorm2d(3).train(fails)
    net = nn.Sequential(noted, norm)
    rng = torch.get_rng_state()
    if fails:
        with pytest.raises(UnsupportedModuleError):
            trace(net, (3, 6, 5))
    else:
        trace(net, (3, 6, 5))
    assert (noted.steps, noted.last) == (0, None)
    assert noted.count.tolist() == [0, 0]
    assert int(norm.num_batches_tracked) == 0
    assert torch.equal(rng, torch.get_rng_state())


def test_errors_of_the_users_own_code_come_through_unchanged():
    def broken(_, x):
        raise KeyError("database")

    with pytest.raises(KeyError, match="database"):
        trace(Body(broken), (3, 6, 5))


def test_something_that_is_no_module_is_refused():
    with pytest.raises(
        UnsupportedModuleError, match=r"a function was given; give a torch\.nn\.Module"
    ):
        trace(lambda x: x, (3,))


def test_a_meta_default_device_changes_nothing():
    net = nn.Sequential(nn.Conv2d(3, 2, 2), nn.Flatten(), nn.Linear(40, 2))
    with torch.device("meta"):
        graph = trace(net, (3, 6, 5))
    assert graph.output_shape == (2,)


def test_a_concatenation_is_a_sum_of_channels_put_in_their_places():
    net = Body(
        lambda m, x: torch.cat([m.one(x), x, m.two(x)], 1),
        one=nn.Conv2d(2, 3, 1),
        two=nn.Conv2d(2, 4, 3, padding=1),
    )
    graph = trace(net, (2, 5, 6))
    placed = [node.layer for node in graph.nodes if isinstance(node.layer, Placement)]
    assert [layer.channels for layer in placed] == [(3, 9), (2, 9), (4, 9)]
    assert graph.output_shape == (9, 5, 6)
    x = torch.randn(3, 2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tensor = kr.tensorize(net.double(), (2, 5, 6))
    pulled = torch.einsum("kabcij,ncij->nkab", tensor.input_weight, x)
    pulled = pulled + tensor.bias
    torch.testing.assert_close(pulled, net(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("join", "message"),
    [
        (lambda _, x: torch.cat([x, x], 2), "another mode than the channels"),
        (lambda _, x: torch.cat([x, x], -1), "another mode than the channels"),
        (lambda _, x: torch.cat([x, torch.ones(1, 2, 5, 6)], 1), "joins a constant"),
    ],
    ids=["rows", "columns", "constant"],
)
def test_what_is_no_concatenation_of_channels_is_refused(join, message):
    with pytest.raises(UnsupportedModuleError, match=message):
        trace(Body(join), (2, 5, 6))
