"""The expansion folds into a dense layer; an offset that meets zero padding asks for one more."""

import pytest
import torch
from torch import nn

from krratio.errors import ShapeError, UnsupportedModuleError
from krratio.theory.fold import fold_expansion

# torch tells once that "same" padding with an even kernel copies the input: that is no defect.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

EXACT = 1e-12  # norm-wise relative, float64


def drawn(*layers, seed=7):
    """The layers in float64 with every parameter normal, biases as large as what they meet."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(*layers).double()
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(0, max(1, p[0].numel()) ** -0.5, generator=generator)
    return net


def images(*shape):
    return torch.randn(5, *shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


def difference(net, other, x):
    with torch.no_grad():
        return float((other(x) - net(x)).norm() / net(x).norm())


CASES = {
    "no offset, padding": (nn.Conv2d(2, 7, 1, bias=False), nn.Conv2d(7, 4, (3, 2), padding=1), 2),
    "offset, no padding": (nn.Conv2d(2, 7, 1), nn.Conv2d(7, 4, (3, 2), bias=False), 2),
    "offset, padding": (nn.Conv2d(2, 7, 1), nn.Conv2d(7, 4, (3, 2), padding=(0, 1)), 3),
    "offset, same": (nn.Conv2d(2, 7, 1), nn.Conv2d(7, 4, (3, 5), padding="same", dilation=2), 3),
    "offset, same, even": (nn.Conv2d(2, 7, 1), nn.Conv2d(7, 4, (2, 1), padding="same"), 3),
    "offset, same, pointwise": (nn.Conv2d(2, 7, 1), nn.Conv2d(7, 4, 1, padding="same"), 2),
    "offset, valid": (nn.Conv2d(2, 7, 1), nn.Conv2d(7, 4, (3, 2), padding="valid"), 2),
    "strides": (nn.Conv2d(2, 7, 1, stride=(1, 2)), nn.Conv2d(7, 4, (2, 3), stride=2, padding=1), 3),
    "padded expansion": (nn.Conv2d(2, 7, 1, padding=(1, 0)), nn.Conv2d(7, 4, 3, padding=1), 3),
    "as many channels": (nn.Conv2d(2, 2, 1), nn.Conv2d(2, 4, (3, 2), padding=1), 2),
    "3D": (nn.Conv3d(2, 5, 1), nn.Conv3d(5, 3, (1, 2, 3), padding=(0, 0, 1)), 3),
}


@pytest.mark.parametrize("case", CASES)
def test_the_folded_layers_are_the_same_function_with_as_few_channels_as_possible(case):
    expansion, following, channels = CASES[case]
    net = drawn(expansion, following)
    narrow, folded = fold_expansion(*net)
    x = images(2, 7, 6, 5) if case == "3D" else images(2, 9, 8)
    assert difference(net, nn.Sequential(narrow, folded), x) <= EXACT
    assert narrow.out_channels == folded.in_channels == channels
    for layer in (narrow, folded):
        assert layer.bias is None or layer.bias.any()


def test_an_offset_in_the_range_of_the_expansion_moves_to_the_bottleneck():
    net = drawn(nn.Conv1d(3, 8, 1), nn.Conv1d(8, 5, 2, padding=1))
    with torch.no_grad():
        inner = torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64)
        net[0].bias.copy_(net[0].weight[..., 0] @ inner)
    narrow, folded = fold_expansion(*net)
    assert torch.allclose(narrow.bias, inner, atol=1e-12)
    assert difference(net, nn.Sequential(narrow, folded), images(3, 11)) <= EXACT


def test_pooling_and_a_linear_layer_take_the_offset_without_another_channel():
    between = [nn.AvgPool2d((2, 3)), nn.Flatten()]
    net = drawn(nn.Conv2d(2, 7, 1), nn.Linear(7 * 4 * 3, 5))
    narrow, folded = fold_expansion(*net)
    whole, less = nn.Sequential(net[0], *between, net[1]), nn.Sequential(narrow, *between, folded)
    assert narrow.out_channels == 2
    assert difference(whole, less, images(2, 8, 9)) <= EXACT


def test_a_float32_network_is_folded_in_float64_and_left_as_it_was():
    net = drawn(nn.Conv2d(2, 7, 1), nn.Conv2d(7, 4, 3, padding=1)).float()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    folded = nn.Sequential(*fold_expansion(*net))
    assert all(p.dtype == torch.float64 for p in folded.parameters())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert difference(net.double(), folded, images(2, 6, 5)) <= EXACT


@pytest.mark.parametrize(
    ("expansion", "following", "error", "message"),
    [
        (nn.Conv2d(2, 6, 3), nn.Conv2d(6, 4, 1), UnsupportedModuleError, "only a 1×1 convolution"),
        (nn.Conv2d(2, 6, 1, groups=2), nn.Conv2d(6, 4, 1), UnsupportedModuleError, "without group"),
        (nn.ReLU(), nn.Conv2d(6, 4, 1), UnsupportedModuleError, r"expansion is ReLU\(\)"),
        (nn.Conv2d(2, 6, 1), nn.Conv2d(6, 6, 3, groups=6), UnsupportedModuleError, "dense in chan"),
        (nn.Conv2d(2, 6, 1), nn.ReLU(), UnsupportedModuleError, r"follows is ReLU\(\)"),
        (
            nn.Conv2d(2, 6, 1),
            nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"),
            UnsupportedModuleError,
            "'reflect'; only 'zeros'",
        ),
        (nn.Conv2d(2, 6, 1), nn.Conv2d(5, 4, 3), ShapeError, "6 channels, but .* takes 5 channels"),
        (nn.Conv2d(2, 6, 1), nn.Linear(20, 4), ShapeError, "6 channels, but .* 20 features, not"),
        (nn.Conv2d(6, 2, 1), nn.Conv2d(2, 4, 3), ShapeError, "2 channels of 6: .*nothing can be"),
    ],
)
def test_what_cannot_be_folded_is_refused_with_the_reason(expansion, following, error, message):
    with pytest.raises(error, match=message):
        fold_expansion(expansion, following)
