"""Solutions of chapter 9: folding, decomposing and auditing by hand."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import krratio as kr


def normal(model: nn.Module) -> nn.Module:
    """Give every parameter normal values, in float64."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.double().eval()


def exercise_1() -> None:
    """To 16: without padding the offset is the same everywhere, so it is the reader's bias."""
    layers = nn.Conv2d(16, 64, 1), nn.Conv2d(64, 40, 3)
    found = kr.fold(normal(nn.Sequential(nn.Conv2d(3, 16, 3), *layers)), (3, 9, 9))
    assert found.report.set_index("name").loc["1", "channels"] == 16
    assert found.difference < 1e-10
    padded = nn.Conv2d(16, 64, 1), nn.Conv2d(64, 40, 3, padding=1)
    found = kr.fold(normal(nn.Sequential(nn.Conv2d(3, 16, 3), *padded)), (3, 9, 9))
    assert found.report.set_index("name").loc["1", "channels"] == 17


class Stream(nn.Module):
    """A stem and two branches that write to 32 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(3, 32, 1, bias=False)
        self.first, self.second = (
            nn.Sequential(
                nn.Conv1d(32, 2, 3, padding=1, bias=False), nn.Conv1d(2, 32, 1, bias=False)
            )
            for _ in range(2)
        )
        self.head = nn.Conv1d(32, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.first(x)
        out: Tensor = self.head(x + self.second(x))
        return out


def exercise_2() -> None:
    """To 3 + 2 + 2 = 7: ranks add, and the stream is one edge."""
    found = kr.fold(normal(Stream()), (3, 11))
    channels = found.report.set_index("name")["channels"]
    assert channels[["stem", "first.1", "second.1"]].tolist() == [7, 7, 7]
    assert found.difference < 1e-10


def exercise_3() -> None:
    """128 r + 9 r² at most 18,432: r = 38, since 39 needs 18,681."""
    size = {r: 64 * r + 9 * r * r + 64 * r for r in (38, 39)}
    assert size[38] <= 64 * 64 * 9 / 2 < size[39]
    conv = normal(nn.Sequential(nn.Conv2d(64, 64, 3, bias=False)))
    report = kr.decompose(conv, method="tucker", rank="params:0.5").report
    assert report.loc[0, "rank"] == (38, 38)
    assert report.loc[0, "params_after"] == size[38]


class Hidden(nn.Module):
    """A bottleneck of functional calls: no layer is a module."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(4, 16, 1, 1))
        self.b = nn.Parameter(torch.empty(4, 4, 3, 3))
        self.c = nn.Parameter(torch.empty(24, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.a))
        x = F.relu(F.conv2d(x, self.b, padding=1))
        return F.relu(F.conv2d(x, self.c))


def exercise_4() -> None:
    """They are: the audit sees operations, not modules."""
    frame = kr.audit(Hidden().to("meta"), (16, 8, 8)).to_frame()
    block = frame[frame["level"] == "block"].iloc[0]
    assert (block["K"], block["R"], block["ratio"]) == (24, 4, 6)
    assert block["redundancy"] == "approximate"
