"""Solutions of chapter 8: exact dimensions of block designs by hand."""

import torch
from torch import Tensor, nn

import krratio as kr
from krratio.auditing.designs.diagram import channel_diagram

SHAPE, OUTPUTS = (6, 6), 10
P = 4 * OUTPUTS  # 2 × 2 positions behind the pooling


def conv(inputs: int, outputs: int, size: int = 1, groups: int = 1) -> nn.Module:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False)


class Projected(nn.Module):
    """A bottleneck beside a projection shortcut."""

    def __init__(self, C: int, K: int, R: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(conv(C, R), conv(R, R, 3), conv(R, K))
        self.shortcut = conv(C, K)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shortcut(x) + self.branch(x)
        return out


def dimension(block: nn.Module, C: int, K: int) -> int:
    head = nn.AvgPool2d(3), nn.Flatten(), nn.Linear(4 * K, OUTPUTS, bias=False)
    return kr.intrinsic_dimension(nn.Sequential(block, *head).to("meta"), (C, *SHAPE)).value


def projected(C: int, K: int, R: int) -> int:
    """PK + KC + KR + 9R² + RC parameters, gauges K², 2R² and, S in place of the centre, R²."""
    return P * K + K * C + K * R + 9 * R * R + R * C - K * K - 3 * R * R


def exercise_1() -> None:
    """GL(K) behind the sum, GL(R) on both inner edges, and the centre of G, which S can be too."""
    assert dimension(Projected(6, 8, 3), 6, 8) == projected(6, 8, 3) == 400


def exercise_2() -> None:
    """What reaches the K channels has rank C from the shortcut and R from the branch, no more."""
    found = [dimension(Projected(8, K, 2), 8, K) for K in (9, 10, 11, 12)]
    assert found[1:] == [found[1]] * 3
    assert found[1] == projected(8, 10, 2)
    assert found[0] == projected(8, 9, 2) < found[1]


def exercise_3() -> None:
    """3(2C + 6) >= 8C, so up to C = 9."""
    for C, saturated in ((9, True), (10, False)):
        block = kr.blocks.inverted_residual(C, C, (3, 3), expansion=3)
        everything = kr.counts.cnn(l=(C, 9), K=C, P=P).intrinsic
        assert (dimension(block, C, C) == everything) == saturated


def exercise_4() -> None:
    """A depthwise layer reads the expansion: channel by channel, so K channels are not R."""
    C, K = 4, 12
    block = nn.Sequential(conv(C, C, 3, C), conv(C, K), conv(K, K, 3, K), conv(K, C))
    axis = channel_diagram(block.to("meta"), (C, *SHAPE))
    assert len(axis.patches) > 0
    frame = kr.audit(block, (C, *SHAPE)).to_frame()
    first = frame[frame["level"] == "block"].iloc[0]
    assert first["ratio"] == K / C
    assert first["redundancy"] == "approximate"
    assert dimension(block, C, C) > dimension(
        nn.Sequential(conv(C, C, 3, C), conv(C, C), conv(C, C, 3, C), conv(C, C)), C, C
    )
    torch.manual_seed(0)
    wide = nn.Sequential(*[type(m)(**_options(m)) for m in block]).double()
    reasons = kr.fold(wide, (C, *SHAPE)).report.set_index("name")["reason"]
    assert "depthwise" in reasons["1"]


def _options(layer: nn.Module) -> dict[str, object]:
    names = ("in_channels", "out_channels", "kernel_size", "padding", "groups")
    return {name: getattr(layer, name) for name in names} | {"bias": False}
