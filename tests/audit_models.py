"""Small networks of known designs, each with a purpose, for the audit."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(C: int, K: int, size: int = 1, groups: int = 1, *, act: bool = True) -> nn.Sequential:
    layers = [nn.Conv2d(C, K, size, padding=size // 2, groups=groups, bias=False)]
    layers += [nn.BatchNorm2d(K), *([nn.ReLU(inplace=True)] if act else [])]
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """A ResNet bottleneck: K/R = 4, a sum and a ReLU behind it."""

    def __init__(self, C: int = 32, R: int = 8, groups: int = 1) -> None:
        super().__init__()
        self.reduce, self.spatial = conv_bn(C, R), conv_bn(R, R, 3, groups)
        self.expand = conv_bn(R, C, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.expand(self.spatial(self.reduce(x))))


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, C: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(C, 4, 1), nn.Conv2d(4, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Inverted(nn.Module):
    """MobileNetV3: an inverted residual with a gate, a functional activation and a linear end."""

    def __init__(self, C: int = 8, t: int = 6) -> None:
        super().__init__()
        self.widen, self.depthwise = conv_bn(C, t * C), conv_bn(t * C, t * C, 3, t * C, act=False)
        self.gate, self.narrow = Gate(t * C), conv_bn(t * C, C, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(self.gate(F.hardswish(self.depthwise(self.widen(x)))))


class Shuffle(nn.Module):
    """ShuffleNet V2: half of the channels pass, the others through 1x1, depthwise, 1x1."""

    def __init__(self, C: int = 16) -> None:
        super().__init__()
        half = C // 2
        self.branch = nn.Sequential(
            conv_bn(half, half), conv_bn(half, half, 3, half, act=False), conv_bn(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        joined = torch.cat([left, self.branch(right)], 1)
        n, c, *space = joined.shape
        return joined.view(n, 2, c // 2, *space).transpose(1, 2).reshape(n, c, *space)


class Next(nn.Module):
    """ConvNeXt: depthwise, layer norm on channels last, linear, GELU, linear."""

    def __init__(self, C: int = 12) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(C, C, 7, padding=3, groups=C)
        self.norm, self.widen, self.narrow = (
            nn.LayerNorm(C),
            nn.Linear(C, 4 * C),
            nn.Linear(4 * C, C),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + self.narrow(F.gelu(self.widen(y))).permute(0, 3, 1, 2)


def linear_bottleneck(R: int = 4, K: int = 16) -> nn.Sequential:
    """Linear throughout: 1x1, 3x3, 1x1, pooling, FC: foldable exactly."""
    return nn.Sequential(
        nn.Conv2d(3, 5, 1),
        nn.Conv2d(5, R, 3, padding=1),
        nn.Conv2d(R, K, 1),
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(4 * K, 10),
    )


class Net(nn.Module):
    """Parts by name, and a forward that is a function of the network and its inputs."""

    def __init__(self, function, **parts) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = function

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        return self.function(self, *inputs, **named)
