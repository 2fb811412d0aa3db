"""The dimension of the function class, and the conditions under which it does not depend on K."""

import pytest
import torch
from torch import nn

import krratio as kr
from krratio.errors import MemoryLimitError, UnsupportedModuleError
from krratio.networks.layers import Shape
from krratio.theory.spectrum import NoSpectralGapError, spectral_rank


def dimension(*layers, shape, **options):
    net = nn.Sequential(*layers).eval()
    return int(kr.intrinsic_dimension(net, shape, **options))


@pytest.mark.parametrize("channels", [1, 2, 3, 7, 15])
def test_a_plain_cnn_without_overlap_has_the_dimension_of_low_rank_matrices(channels):
    """r (L + P T - r), r = min(K, L, P T); stride = window, so that patches do not overlap."""
    net = nn.Sequential(
        nn.Conv2d(2, channels, (3, 2), stride=(3, 2), bias=False),
        nn.Flatten(),
        nn.Linear(channels * 6, 2, bias=False),
    )
    volume, places, rank = 12, 12, min(channels, 12)
    expected = rank * (volume + places - rank)
    assert int(kr.intrinsic_dimension(net, (2, 9, 4))) == expected


@pytest.mark.parametrize(("bottleneck", "expected"), [(2, 44), (3, 87)])
@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
def test_a_bottleneck_has_the_same_dimension_for_every_expansion(bottleneck, expected, ratio):
    channels = ratio * bottleneck
    assert expected == dimension(
        nn.Conv2d(4, bottleneck, 1, bias=False),
        nn.Conv2d(bottleneck, bottleneck, 3, bias=False),
        nn.Conv2d(bottleneck, channels, 1, bias=False),
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(channels * 4, 1, bias=False),
        shape=(4, 10, 10),
    )


def after_expansion(channels, *, padding):
    return [
        nn.Conv2d(3, 2, (3, 2), bias=False),
        nn.Conv2d(2, channels, 1),
        nn.Conv2d(channels, 4, (3, 2), padding=(padding, 0)),
    ]


def test_an_offset_that_meets_zero_padding_asks_for_one_more_channel():
    dims = [
        dimension(*after_expansion(k, padding=1), shape=(3, 7, 6), bias=True) for k in (2, 3, 4, 8)
    ]
    assert dims[0] < dims[1] == dims[2] == dims[3]


def test_without_padding_the_offset_needs_no_channel():
    dims = {
        dimension(*after_expansion(k, padding=0), shape=(3, 7, 6), bias=True) for k in (2, 3, 8)
    }
    assert len(dims) == 1


def test_a_depthwise_layer_after_the_expansion_makes_every_channel_count():
    dims = [
        dimension(
            nn.Conv2d(3, 2, (3, 2), bias=False),
            nn.Conv2d(2, k, 1, bias=False),
            nn.Conv2d(k, k, (2, 3), groups=k, bias=False),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(k * 3 * 2, 2, bias=False),
            shape=(3, 9, 8),
        )
        for k in (2, 4, 8)
    ]
    assert dims[0] < dims[1] < dims[2]


def test_biases_and_batchnorm_shifts_count_only_when_asked_for():
    layers = [nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(15, 4)]
    assert dimension(*layers, shape=(2, 6), bias=True) == 4 + dimension(*layers, shape=(2, 6))


def test_the_architecture_alone_decides_so_meta_modules_do():
    layers = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Linear(15, 4))
    before = int(kr.intrinsic_dimension(layers, (2, 6)))
    assert int(kr.intrinsic_dimension(layers.to("meta"), (2, 6))) == before
    assert int(kr.intrinsic_dimension(layers, (2, 6), seed=5)) == before


def test_shared_weights_are_one_parameter():
    conv = nn.Conv1d(2, 2, 3, bias=False)
    result = kr.intrinsic_dimension(nn.Sequential(conv, conv), (2, 9))
    assert result.parameters == 12
    assert int(result) == 12


def test_single_channel_filter_chains_have_the_published_dimension():
    """Sum of lengths - (layers - 1): Kohn, Merkh, Montúfar and Trager (2022)."""
    sizes = (3, 2, 4)
    net = nn.Sequential(
        *[nn.Conv1d(1, 1, k, stride=s, bias=False) for k, s in zip(sizes, (2, 1, 3), strict=True)]
    )
    assert int(kr.intrinsic_dimension(net, (1, 30))) == sum(sizes) - 2


def test_a_network_without_parameters_has_dimension_zero():
    assert int(kr.intrinsic_dimension(nn.AvgPool1d(2), (1, 4))) == 0
    spectral = kr.intrinsic_dimension(nn.AvgPool1d(2), (1, 4), method="float")
    assert (int(spectral), spectral.parameters, spectral.gap) == (0, 0, float("inf"))


@pytest.mark.parametrize("bias", [False, True])
def test_the_float_method_reads_the_rank_off_a_gap(bias):
    net = nn.Sequential(nn.Linear(5, 2), nn.BatchNorm1d(2), nn.Linear(2, 4)).eval()
    result = kr.intrinsic_dimension(net, (5,), method="float", bias=bias)
    assert int(result) == 2 * (5 + 4 - 2) + 4 * bias
    assert result.parameters == 10 + 2 + 8 + 8 * bias
    assert result.gap > 1e9
    values = result.singular_values
    assert list(values) == sorted(values, reverse=True)
    assert values[int(result) - 1] > 1e-6 > 1e-12 > values[int(result)]


def test_the_rank_is_the_number_of_values_above_the_largest_gap():
    values = torch.tensor([4.0, 2.0, 1.0, 1e-17]).double().numpy()
    rank, gap = spectral_rank(values, 10)
    rounding = 4 * 10 * 2.0**-52
    assert (rank, gap) == (3, pytest.approx(1 / rounding))
    assert spectral_rank(values[:3], 10) == (3, gap)
    with pytest.raises(NoSpectralGapError, match=r"value 3 is only 90\.1 times"):
        spectral_rank(torch.tensor([4.0, 2.0, 8e-13]).double().numpy(), 10)


def test_a_rank_without_a_gap_is_refused():
    values = torch.logspace(0, -15, 40).double().numpy()
    with pytest.raises(NoSpectralGapError, match="where 1000 times is asked for"):
        spectral_rank(values, 40)


def test_unknown_methods_are_refused():
    shape: Shape = (1, 4)
    with pytest.raises(ValueError, match="'guess' is unknown"):
        kr.intrinsic_dimension(nn.AvgPool1d(2), shape, method="guess")


class Wrapped(nn.Module):
    """A linear layer whose weight is the given function of parameters or buffers."""

    def __init__(self, weight, **tensors):
        super().__init__()
        self._weight = weight
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(name, tensor)
            else:
                self.register_buffer(name, tensor)

    def forward(self, x):
        return nn.functional.linear(x, self._weight(self))


def test_buffers_and_frozen_parameters_are_no_degrees_of_freedom():
    blur = Wrapped(lambda m: m.kernel, kernel=torch.randn(4, 6))
    assert int(kr.intrinsic_dimension(blur, (6,))) == 0
    frozen = nn.Linear(6, 4)
    frozen.weight.requires_grad_(False)
    assert int(kr.intrinsic_dimension(nn.Sequential(frozen, nn.Linear(4, 2)), (6,))) == 8


@pytest.mark.parametrize(
    "net",
    [
        Wrapped(
            lambda m: m.u @ m.v,
            u=nn.Parameter(torch.randn(6, 1)),
            v=nn.Parameter(torch.randn(1, 6)),
        ),
        Wrapped(lambda m: m.u[:4], u=nn.Parameter(torch.randn(6, 6))),
        torch.nn.utils.parametrizations.orthogonal(nn.Linear(6, 6)),
    ],
    ids=["product", "slice", "orthogonal"],
)
def test_weights_that_are_computed_from_parameters_are_refused(net):
    with pytest.raises(UnsupportedModuleError, match="is computed from other tensors"):
        kr.intrinsic_dimension(net, (6,))


def test_a_jacobian_that_is_too_large_is_refused_with_both_sizes():
    with pytest.raises(
        MemoryLimitError, match=r"5,000 parameters takes up to 400,000,000 bytes.*1,000,000"
    ):
        kr.intrinsic_dimension(nn.Linear(100, 50), (100,), method="float", max_bytes=1_000_000)
    small = nn.Linear(10, 5, bias=False)
    most = 8 * 2 * 50**2
    assert int(kr.intrinsic_dimension(small, (10,), method="float", max_bytes=most)) == 50
    with pytest.raises(MemoryLimitError, match="50 parameters takes up to 40,000 bytes"):
        kr.intrinsic_dimension(small, (10,), method="float", max_bytes=most - 1)
    with pytest.raises(MemoryLimitError, match=r"5,000 columns takes up to 1,500,000,000 bytes"):
        kr.intrinsic_dimension(nn.Linear(100, 50), (100,), max_bytes=1_000_000)
