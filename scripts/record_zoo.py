"""Audit published architectures, and compare with torchinfo's counts.

    pip install --no-deps pytorchcv==0.0.74 torchinfo==1.8.0
    python scripts/record_zoo.py

pytorchcv holds the constructors and asks for torchvision, which is not needed: hence --no-deps.
Writes data/results/audit-zoo.csv and its provenance beside it. Takes less than a minute.
"""

import importlib
import json
import platform
import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import nn

import krratio as kr
from krratio.auditing.audit import Audit, write
from krratio.paths import DATA

# Year of the first publication, module of pytorchcv.models, constructor.
ZOO = """
2012 alexnet alexnet
2014 vgg vgg16
2015 resnet resnet18
2015 resnet resnet50
2015 inceptionv3 inceptionv3
2016 preresnet preresnet50
2016 wrn wrn50_2
2016 squeezenet squeezenet_v1_0
2016 densenet densenet121
2016 xception xception
2016 resnext resnext50_32x4d
2017 dpn dpn68
2017 mobilenet mobilenet_w1
2017 shufflenet shufflenet_g3_w1
2017 seresnet seresnet50
2017 seresnext seresnext50_32x4d
2017 nasnet nasnet_4a1056
2017 dla dla34
2018 mobilenetv2 mobilenetv2_w1
2018 shufflenetv2 shufflenetv2_w1
2018 mnasnet mnasnet_b1
2018 proxylessnas proxylessnas_gpu
2018 darknet53 darknet53
2018 igcv3 igcv3_w1
2018 menet menet108_8x1_g3
2018 cbamresnet cbam_resnet50
2018 espnetv2 espnetv2_wd2
2018 peleenet peleenet
2018 fbnet fbnet_cb
2019 mobilenetv3 mobilenetv3_large_w1
2019 efficientnet efficientnet_b0
2019 bagnet bagnet17
2019 sknet sknet50
2019 hrnet hrnet_w18_small_v1
2019 vovnet vovnet39
2019 ghostnet ghostnet
2020 regnet regnetx032
2020 regnet regnety040
2020 resnesta resnesta50
"""
LARGE = ("inceptionv3", "xception")  # on images of 299 x 299


def _meta(module: str, name: str) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = getattr(importlib.import_module(f"pytorchcv.models.{module}"), name)()
    return model


def _best(call: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    """Seconds of the fastest of some calls, and what the last returned."""
    seconds, found = [], None
    for _ in range(times):
        start = time.perf_counter()
        found = call()
        seconds.append(time.perf_counter() - start)
    return min(seconds), found


def _extras(model: nn.Module, found: Audit) -> int:
    """What torchinfo counts beside multiply-adds with weights: biases and normalization.

    Each bias of a convolution once per place, that of a linear layer and the parameters of a
    normalization once, all of them for every use.
    """
    layers = [row for row in found.rows if row["level"] == "layer"]
    named = {row["name"] for row in layers}
    extra: int = sum(
        (row["params"] - row["naive"])
        * (1 if row["kind"] == "linear" else row["macs"] // row["naive"])
        for row in layers
    )
    for name, module in model.named_modules():
        if name not in named:
            extra += sum(p.numel() for p in module.parameters(recurse=False))
    return extra


def _row(year: int, module: str, name: str) -> dict[str, Any]:
    torchinfo = importlib.import_module("torchinfo")
    model, size = _meta(module, name), 299 if name in LARGE else 224
    seconds, found = _best(lambda: kr.audit(model, (3, size, size)))
    options = {"verbose": 0, "device": "meta", "depth": 1}
    peer_seconds, peer = _best(lambda: torchinfo.summary(model, (1, 3, size, size), **options))
    frame = found.to_frame()
    blocks = frame[frame["level"] == "block"]
    row = {
        "year": year,
        "name": name,
        "parameters": found.parameters,
        "macs": found.macs,
        "blocks": len(blocks),
        "ratio_low": blocks["ratio"].min(),
        "ratio": blocks["ratio"].median(),
        "ratio_high": blocks["ratio"].max(),
        "K > R": int((blocks["ratio"] > 1).sum()),
    }
    row |= {f"share {c}": found.shares.get(c, 0.0) for c in ("exact", "branch only", "approximate")}
    return row | {
        "torchinfo_parameters": peer.total_params,
        "torchinfo_macs": peer.total_mult_adds,
        "biases_and_norms": _extras(model, found),
        "not_understood": len(found.not_understood),
        "audit_s": round(seconds, 4),
        "torchinfo_s": round(peer_seconds, 4),
    }


def main() -> None:
    """Audit all and write the table."""
    rows = []
    for line in ZOO.split("\n"):
        if line:
            year, module, name = line.split()
            rows.append(_row(int(year), module, name))
            print({k: rows[-1][k] for k in ("name", "parameters", "blocks", "ratio")}, flush=True)
    frame = pd.DataFrame(rows)
    write(DATA / "results/audit-zoo.csv", frame.to_csv(index=False, lineterminator="\n"))
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pytorchcv": "0.0.74",
        "torchinfo": "1.8.0",
        "threads": torch.get_num_threads(),
    }
    write(DATA / "results/audit-zoo.json", json.dumps(versions, indent=1) + "\n")
    unlike = frame["torchinfo_macs"] - frame["macs"] != frame["biases_and_norms"]
    other = frame["parameters"] != frame["torchinfo_parameters"]
    print("parameters differ:", frame["name"][other].tolist())
    print("multiply-adds differ by more than biases and norms:", frame["name"][unlike].tolist())
    ratios = frame["audit_s"] / frame["torchinfo_s"]
    print(f"seconds over torchinfo's: median {ratios.median():.2f}, largest {ratios.max():.2f}")


if __name__ == "__main__":
    main()
