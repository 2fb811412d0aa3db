"""Time and memory of an audit, as ratios to torchinfo's summary of the same network.

Networks on ``device="meta"``: three like the published ones (ResNet, MobileNetV2, ConvNeXt), built
of ``kr.blocks``, and a transformer encoder of 1.5 billion parameters, whose weights would take
5.9 GB. Every measurement has a process of its own. Seconds are the best of some calls; memory is by
how much the largest resident set grew, after one call on a small network that loads what is loaded
once.

Goals: no weight is allocated, and less than twice torchinfo's time although the audit also finds
blocks and runs. Without torchinfo only our own numbers are shown.

    pip install --no-deps torchinfo==1.8.0
    python benchmarks/audit.py [--networks resnet ...] [--repeats 5] [--out FILE]
"""

import argparse
import importlib
import importlib.util
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

import krratio as kr

WIDTHS = (64, 128, 256, 512)


def resnet() -> nn.Module:
    """Stages of 3, 4, 6, 3 bottlenecks of 256 to 2048 channels."""
    layers: list[nn.Module] = [nn.Conv2d(3, 256, 7, stride=4, padding=3)]
    for R, depth in zip(WIDTHS, (3, 4, 6, 3), strict=True):
        if WIDTHS[0] < R:
            layers.append(nn.Conv2d(2 * R, 4 * R, 1, stride=2))
        options = {"R": R, "activation": nn.ReLU, "norm": True}
        layers += [kr.blocks.resnet_bottleneck(4 * R, (3, 3), **options) for _ in range(depth)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


def mobilenet() -> nn.Module:
    """17 inverted residuals of 16 to 320 channels."""
    widths = [16, 24, 24, 32, 32, 32, *[64] * 4, *[96] * 3, *[160] * 3, 320]
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, stride=2, padding=1)]
    for C, K in zip([16, *widths], widths, strict=False):
        if C != K:
            layers.append(nn.AvgPool2d(2) if K in (24, 32, 64, 160) else nn.Identity())
        layers.append(kr.blocks.inverted_residual(C, K, (3, 3), activation=nn.ReLU6, norm=True))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(320, 1000))


def convnext() -> nn.Module:
    """Stages of 3, 3, 9, 3 blocks of 96 to 768 channels."""
    layers: list[nn.Module] = [nn.Conv2d(3, 96, 4, stride=4)]
    for width, depth in zip((96, 192, 384, 768), (3, 3, 9, 3), strict=True):
        if width > 96:
            layers.append(nn.Conv2d(width // 2, width, 2, stride=2))
        options = {"activation": nn.GELU, "norm": True}
        layers += [kr.blocks.convnext(width, (7, 7), **options) for _ in range(depth)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(768, 1000))


class Encoder(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norms = heads, nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attention, then a layer four times as wide."""
        parts = self.project(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in parts)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.norms[1](x))))


def encoder() -> nn.Module:
    """48 layers of width 1600: 1.5 billion parameters."""
    return nn.Sequential(*(Encoder(1600, 25) for _ in range(48)))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet": (resnet, (3, 224, 224)),
    "mobilenet": (mobilenet, (3, 224, 224)),
    "convnext": (convnext, (3, 224, 224)),
    "encoder": (encoder, (197, 1600)),
}


def ours(model: nn.Module, shape: tuple[int, ...]) -> int:
    return kr.audit(model, shape).parameters


def peer(model: nn.Module, shape: tuple[int, ...]) -> int:
    torchinfo = importlib.import_module("torchinfo")
    options = {"verbose": 0, "device": "meta", "depth": 1}
    return torchinfo.summary(model, (1, *shape), **options).total_params


TOOLS = {"krratio": ours, "torchinfo": peer}


def peak() -> float:
    """The largest resident set so far, in MB."""
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def measure(network: str, tool: str, repeats: int) -> dict[str, float]:
    """In this process: seconds, growth in MB, and the parameters that were found."""
    make, shape = NETWORKS[network]
    with torch.device("meta"):
        small, model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 1)), make()
    TOOLS[tool](small, (3, 8, 8))
    before, seconds, found = peak(), [], 0
    for _ in range(repeats):
        start = time.perf_counter()
        found = TOOLS[tool](model, shape)
        seconds.append(time.perf_counter() - start)
    return {"seconds": min(seconds), "MB": peak() - before, "parameters": found}


def measured_apart(network: str, tool: str, repeats: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--networks", network, "--repeats", str(repeats)]
    done = subprocess.run([*command, "--tool", tool], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def row(network: str, tools: list[str], repeats: int) -> dict[str, object]:
    found = {tool: measured_apart(network, tool, repeats) for tool in tools}
    values: dict[str, object] = {"network": network, "parameters": found["krratio"]["parameters"]}
    for tool, one in found.items():
        if one["parameters"] != values["parameters"]:
            raise SystemExit(f"{network}: {tool} counts {one['parameters']} parameters")
        values |= {f"{tool}_s": round(one["seconds"], 4), f"{tool}_MB": round(one["MB"], 1)}
    if "torchinfo" in found:
        ratio = found["krratio"]["seconds"] / found["torchinfo"]["seconds"]
        values["seconds_ratio"] = round(ratio, 2)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tool", choices=TOOLS, help="measure one in this process")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.tool:
        print(json.dumps(measure(options.networks[0], options.tool, options.repeats)))
        return
    tools = [tool for tool in TOOLS if tool == "krratio" or importlib.util.find_spec(tool)]
    frame = pd.DataFrame([row(name, tools, options.repeats) for name in options.networks])
    print(frame.to_string(index=False))
    if "torchinfo" not in tools:
        print("no ratio to torchinfo, which is not installed")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
