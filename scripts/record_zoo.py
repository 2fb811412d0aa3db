"""Audit published architectures, and compare with torchinfo's and fvcore's counts.

    pip install --no-deps pytorchcv==0.0.74 torchinfo==1.8.0
    pip install --no-deps fvcore==0.1.5.post20221221 iopath yacs termcolor tabulate portalocker
    python scripts/record_zoo.py [--verify]

pytorchcv holds the constructors and asks for torchvision, which is not needed: hence --no-deps.
ConvNeXt-T is not in it and is built here, of ``kr.blocks.convnext``.

Parameters must be equal everywhere. Multiply-adds differ by what a peer counts beside products with
weights, and a difference that the following does not explain is printed:

torchinfo
    Adds each bias of a convolution once per place, that of a linear layer and the parameters of a
    normalization once, all of them for every use: column ``biases_and_norms``.
fvcore
    Its operators conv, linear and addmm are what is compared (``fvcore_macs``); no bias. Whatever
    its other handles count (batch norm, pooling, upsampling) stands in ``fvcore_other``. It traces
    a forward with jit, which meta tensors cannot pass, so that its seconds hold the computation.

Writes data/results/audit-zoo.csv (one row per network), audit-zoo-blocks.csv (one per block) and
their provenance. Takes about a minute. --verify audits all of them again and compares everything
but the seconds.
"""

import argparse
import importlib
import io
import logging
import platform
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import nn

import krratio as kr
from krratio.auditing.audit import Audit
from krratio.auditing.structure.blocks import CLASSES
from krratio.paths import DATA
from krratio.pipeline.records import seal
from krratio.pipeline.verifying import verify_record
from krratio.writing import write_text

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
2022 here convnext_tiny
"""
BLOCK_COLUMNS = "name kind K R ratio params naive covering redundancy also".split()
FVCORE = ("conv", "linear", "addmm")
LARGE = ("inceptionv3", "xception")  # on images of 299 x 299


def convnext_tiny() -> nn.Module:
    """ConvNeXt-T (Liu et al. 2022, arXiv 2201.03545, section 3 and appendix A).

    Stem 4x4/4, stages of 3, 3, 9, 3 blocks of 96 to 768 channels with a norm and a 2x2/2 between,
    pooling, norm, linear. Layer norm over channels is GroupNorm of one group here, over places too,
    of equal size. Left out are the layer scale (6,624 parameters) and the biases of the blocks'
    convolutions (39,744), with which it would have the published 28,589,128.
    """
    widths, depths = (96, 192, 384, 768), (3, 3, 9, 3)
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=4), nn.GroupNorm(1, widths[0])]
    for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        if i:
            before = widths[i - 1]
            layers += [nn.GroupNorm(1, before), nn.Conv2d(before, width, 2, stride=2)]
        layers += [
            kr.blocks.convnext(width, (7, 7), activation=nn.GELU, norm=True) for _ in range(depth)
        ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(widths[-1])]
    return nn.Sequential(*layers, *head, nn.Linear(widths[-1], 1000))


def build(module: str, name: str) -> nn.Module:
    """A network of the table, on ``device="meta"``."""
    with torch.device("meta"):
        if module == "here":
            return convnext_tiny()
        model: nn.Module = getattr(importlib.import_module(f"pytorchcv.models.{module}"), name)()
    return model


def entries() -> list[tuple[int, str, str]]:
    """Year, module and name of every network."""
    lines = [line.split() for line in ZOO.strip().split("\n")]
    return [(int(year), module, name) for year, module, name in lines]


def image_size(name: str) -> int:
    """Height and width of its images."""
    return 299 if name in LARGE else 224


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


def _torchinfo(model: nn.Module, found: Audit, size: int) -> dict[str, Any]:
    torchinfo = importlib.import_module("torchinfo")
    options = {"verbose": 0, "device": "meta", "depth": 1}
    seconds, peer = _best(lambda: torchinfo.summary(model, (1, 3, size, size), **options))
    return {
        "torchinfo_parameters": peer.total_params,
        "torchinfo_macs": peer.total_mult_adds,
        "biases_and_norms": _extras(model, found),
        "torchinfo_s": round(seconds, 4),
    }


def _fvcore(model: nn.Module, size: int) -> dict[str, Any]:
    """Counts on real weights, all zero; the network has them afterwards."""
    fvcore = importlib.import_module("fvcore.nn")
    real = model.to_empty(device="cpu").eval()
    with torch.no_grad():
        for tensor in (*real.parameters(), *real.buffers()):
            tensor.zero_()

    def count() -> dict[str, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # jit says that it traces values
            counted = fvcore.FlopCountAnalysis(real, torch.zeros(1, 3, size, size))
            counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            return dict(counted.by_operator())

    seconds, by_operator = _best(count, 1)
    return {
        "fvcore_parameters": fvcore.parameter_count(real)[""],
        "fvcore_macs": int(sum(by_operator.get(name, 0) for name in FVCORE)),
        "fvcore_other": int(sum(n for name, n in by_operator.items() if name not in FVCORE)),
        "fvcore_s": round(seconds, 4),
    }


def summary_of(found: Audit) -> dict[str, Any]:
    """What a network's row holds of its audit."""
    frame = found.to_frame()
    blocks = frame[frame["level"] == "block"]
    wide = blocks[blocks["ratio"] > 1]
    row = {
        "parameters": found.parameters,
        "macs": found.macs,
        "blocks": len(blocks),
        "ratio_low": blocks["ratio"].min(),
        "ratio": blocks["ratio"].median(),
        "ratio_high": blocks["ratio"].max(),
        "K > R": len(wide),
        "dominant": wide["redundancy"].mode().min() if len(wide) else "",
        "not_understood": len(found.not_understood),
    }
    shown = [*(c for c in CLASSES if c not in ("bound only", "saturated")), "no block"]
    row |= {f"share {c}": found.shares.get(c, 0.0) for c in shown}
    return row | {f"also {c}": found.also.get(c, 0.0) for c in ("saturated", "bound only")}


def block_rows(found: Audit) -> list[dict[str, Any]]:
    """What the table of blocks holds of an audit."""
    rows = [row for row in found.rows if row["level"] == "block"]
    return [{name: row[name] for name in BLOCK_COLUMNS} for row in rows]


def unexplained(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Networks of which a difference to a peer is not explained."""
    parameters, macs = frame["parameters"], frame["macs"]
    unlike = {
        "torchinfo's parameters": frame["torchinfo_parameters"] != parameters,
        "torchinfo's multiply-adds": frame["torchinfo_macs"] - macs != frame["biases_and_norms"],
        "fvcore's parameters": frame["fvcore_parameters"] != parameters,
        "fvcore's multiply-adds": frame["fvcore_macs"] != macs,
    }
    return {what: frame["name"][found].tolist() for what, found in unlike.items()}


def verify(frame: pd.DataFrame, blocks: pd.DataFrame) -> None:
    """Compare what was audited again with the tables that are kept."""
    seconds = [name for name in map(str, frame) if name.endswith("_s")]
    keys = {"audit-zoo": ["name"], "audit-zoo-blocks": ["architecture", "name", "kind"]}
    for (name, key), table in zip(keys.items(), (frame, blocks), strict=True):
        again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
        apart = seconds if table is frame else ()
        found = verify_record("audit-zoo", f"{name}.csv", again, key=key, apart=apart)
        print(f"{name}: {found.said()}")


def _write(frame: pd.DataFrame, blocks: pd.DataFrame) -> None:
    for name, table in (("audit-zoo", frame), ("audit-zoo-blocks", blocks)):
        text = table.to_csv(index=False, lineterminator="\n")
        write_text(DATA / f"results/{name}.csv", text)
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pytorchcv": "0.0.74",
        "torchinfo": "1.8.0",
        "fvcore": "0.1.5.post20221221",
        "threads": torch.get_num_threads(),
    }
    seal("audit-zoo", versions, ["audit-zoo.csv", "audit-zoo-blocks.csv"])


def main() -> None:
    """Audit all and write the tables, or compare with them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verify", action="store_true", help="all, and write nothing else")
    options = parser.parse_args()
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    rows, blocks = [], []
    for year, module, name in entries():
        model, size = build(module, name), image_size(name)
        seconds, found = _best(partial(kr.audit, model, (3, size, size)))
        row = {"year": year, "name": name} | summary_of(found) | {"audit_s": round(seconds, 4)}
        row |= _torchinfo(model, found, size)
        rows.append(row | _fvcore(model, size))
        blocks += [{"architecture": name, "year": year} | block for block in block_rows(found)]
        print({k: row[k] for k in ("name", "parameters", "blocks", "ratio")}, flush=True)
    frame, of_blocks = pd.DataFrame(rows), pd.DataFrame(blocks)
    if options.verify:
        verify(frame, of_blocks)
        return
    _write(frame, of_blocks)
    for what, names in unexplained(frame).items():
        print(f"{what} differ without explanation: {names}")
    for peer in ("torchinfo", "fvcore"):
        ratios = frame["audit_s"] / frame[f"{peer}_s"]
        print(f"seconds over {peer}'s: median {ratios.median():.2f}, largest {ratios.max():.2f}")


if __name__ == "__main__":
    main()
