"""What decomposition does to a trained classifier: before, after, and after a little more training.

Three controls make the numbers mean something: the network itself after as much more training, and
each small network trained from new weights for as long as both phases together.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn

from krratio.auditing.audit import audit
from krratio.experiments.classifying import (
    Images,
    correct,
    image_network,
    initialized,
    train_classifier,
)
from krratio.experiments.intervals import mean_interval
from krratio.experiments.success_rates import wilson
from krratio.rewriting.decomposing.decompose import DecomposeResult, decompose

__all__ = ["STAGES", "Trial", "over_seeds", "tuned_over_scratch", "with_intervals"]

STAGES = ("trained", "decomposed", "tuned", "scratch")
"""Of a network: as trained; rewritten; trained on; small from the start."""


@dataclass(frozen=True)
class Trial:
    """One network, decomposed in several ways.

    Attributes
    ----------
    channels
        Of its convolutions.
    methods, shares
        ``decompose(method=..., rank="params:share")`` for each pair.
    epochs, tuning
        Passes of training, and of more training after decomposition.
    rate, tuning_rate
        Their learning rates.
    seed
        Master seed: weights and orders of images are drawn from streams of their own.
    """

    channels: tuple[int, ...]
    methods: tuple[str, ...] = ("tucker", "cp", "tt")
    shares: tuple[float, ...] = (0.75, 0.5, 0.25, 0.125)
    epochs: float = 4
    tuning: float = 1
    rate: float = 0.05
    tuning_rate: float = 0.02
    seed: int = 0

    def run(self, train: Images, test: Images, *, scratch: bool = True) -> pd.DataFrame:
        """Train, decompose and train on.

        Returns
        -------
        DataFrame
            One row for each network and stage: ``seed``; ``method`` and ``share`` (``"none"`` and 1
            for the network itself); ``stage``, one of :data:`STAGES`; ``parameters``, ``macs`` for
            one image; ``correct`` of ``images``, ``accuracy``; ``error``, the largest relative
            error of a kernel; ``seconds`` of the decomposition.
        """
        return pd.DataFrame(list(self._rows(train, test, scratch=scratch)))

    def _rows(self, train: Images, test: Images, *, scratch: bool) -> Iterator[dict[str, Any]]:
        whole = self._trained(self._new(train), train, self.epochs, self.rate, "first")
        yield self._row(whole, test, "trained")
        more = self._trained(copy.deepcopy(whole), train, self.tuning, self.tuning_rate, "second")
        yield self._row(more, test, "tuned")
        for method in self.methods:
            for share in self.shares:
                found = decompose(whole, method=method, rank=f"params:{share}")
                named = (method, share, found)
                yield self._row(found.model, test, "decomposed", *named)
                small = copy.deepcopy(found.model)
                self._trained(small, train, self.tuning, self.tuning_rate, "second")
                yield self._row(small, test, "tuned", *named)
                if scratch:
                    new = initialized(found.model, self.seed, "scratch", method, share)
                    passes = self.epochs + self.tuning
                    self._trained(new, train, passes, self.rate, "scratch")
                    yield self._row(new, test, "scratch", *named)

    def _new(self, train: Images) -> nn.Module:
        net = image_network(self.channels, inputs=train.x.shape[1])
        return initialized(net, self.seed, "whole").to(train.x.dtype)

    def _trained(
        self, net: nn.Module, images: Images, epochs: float, rate: float, phase: str
    ) -> nn.Module:
        return train_classifier(net, images, epochs=epochs, rate=rate, seed=self.seed, key=phase)

    def _row(
        self,
        net: nn.Module,
        test: Images,
        stage: str,
        method: str = "none",
        share: float = 1.0,
        found: DecomposeResult | None = None,
    ) -> dict[str, Any]:
        counted, right = audit(net, tuple(test.x.shape[1:])), correct(net, test)
        report = None if found is None else found.report
        return {
            "seed": self.seed,
            "method": method,
            "share": share,
            "stage": stage,
            "parameters": counted.parameters,
            "macs": counted.macs,
            "correct": right,
            "images": len(test),
            "accuracy": right / len(test),
            "error": 0.0 if report is None else float(report["error"].max()),
            "seconds": 0.0 if report is None else float(report["seconds"].sum()),
        }


def with_intervals(rows: pd.DataFrame) -> pd.DataFrame:
    """Add ``low`` and ``high``, the 95 % interval (Wilson) of the accuracy over test images."""
    pairs = zip(rows["correct"], rows["images"], strict=True)
    low, high = zip(*(wilson(right, images) for right, images in pairs), strict=True)
    return rows.assign(low=low, high=high)


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds with 95 % intervals of Student.

    Returns
    -------
    DataFrame
        One row for each ``method``, ``share`` and ``stage``: mean ``parameters`` and ``macs``;
        ``accuracy`` with ``accuracy_low`` and ``accuracy_high``; and ``loss``, ``loss_low``,
        ``loss_high``: what is lost of the accuracy of the same seed's whole network after as much
        training, in percentage points.
    """
    whole = rows[(rows["method"] == "none") & (rows["stage"] == "tuned")]
    reference = rows["seed"].map(whole.set_index("seed")["accuracy"])
    rows = rows.assign(loss=100 * (reference - rows["accuracy"]))
    found = []
    for key, part in rows.groupby(["method", "share", "stage"], sort=False):
        row: dict[str, Any] = dict(zip(("method", "share", "stage"), key, strict=True))
        row |= {"seeds": len(part), "parameters": part["parameters"].mean()}
        row["macs"] = part["macs"].mean()
        for name in ("accuracy", "loss"):
            row |= mean_interval(name, torch.tensor(part[name].to_list()), student=True)
        found.append(row)
    return pd.DataFrame(found)


def tuned_over_scratch(rows: pd.DataFrame) -> pd.DataFrame:
    """What the trained weights are worth: tuned less scratch, seed by seed, in percentage points.

    Returns
    -------
    DataFrame
        ``method``, ``share``, mean ``gain`` with ``gain_low`` and ``gain_high`` (95 %, Student).
    """
    table = rows[rows["method"] != "none"].pivot_table(
        index=["method", "share", "seed"], columns="stage", values="accuracy"
    )
    gains = 100 * (table["tuned"] - table["scratch"])
    found = []
    for (method, share), part in gains.groupby(["method", "share"], sort=False):
        row: dict[str, Any] = {"method": method, "share": share}
        found.append(row | mean_interval("gain", torch.tensor(part.to_list()), student=True))
    return pd.DataFrame(found)
