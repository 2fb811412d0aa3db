"""The audit of a network: one row per layer, block and linear run."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import nn

from krratio.auditing.printable import printable
from krratio.auditing.structure.blocks import Block, blocks, classes
from krratio.auditing.structure.chains import Chain, chains
from krratio.auditing.structure.flow import Flow
from krratio.auditing.structure.layers import MixingLayer, parameters_of
from krratio.auditing.structure.recurrent import RecurrentLayer, recurrent_layers
from krratio.auditing.walking.inputs import Input, inputs_of
from krratio.auditing.walking.kinds import Role, role_of
from krratio.auditing.walking.walk import Progress, walk
from krratio.writing import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CONVENTIONS", "Audit", "audit"]

CONVENTIONS = (
    "A MAC is one multiply-add with a weight, for one input (a tensor that was given counts with "
    "its batch); biases, normalization, activations, lookups and products of two activations "
    "(attention) are not counted. Parameters are counted once, "
    "however often they are used; macs are counted for each use."
)


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found.

    Attributes
    ----------
    name
        Type of the network.
    rows
        One for each layer, block and linear run; see :meth:`to_frame`.
    parameters
        All of them, shared ones once.
    macs
        Of one forward for one input.
    shares
        Share of the parameters that lie in blocks of each class, every weight counted with the
        first block that uses it; the rest is ``"no block"``.
    also
        The same for the further classes of the blocks; a block can have several of them.
    not_understood
        (module, operator) of every operation without a row in the table of kinds, and of layers
        whose weight is computed from parameters, or a parameter in a shape that says too little.
    """

    name: str
    rows: tuple[dict[str, Any], ...]
    parameters: int
    macs: int
    shares: dict[str, float]
    also: dict[str, float]
    not_understood: tuple[tuple[str, str], ...]

    def to_frame(self) -> pd.DataFrame:
        """One row for each layer, block and linear run, in this order.

        Columns: ``level``; ``name``; ``kind``; ``K``; ``R``; ``ratio`` = K/R; ``fan_in_rank``;
        ``params`` (of the row's own layers, with biases); ``naive`` and ``covering`` counts and
        their signed difference ``excess``; ``redundancy``, the strongest class, and ``also``, the
        other ones that apply; ``macs``. NaN where a number is unknown or has no meaning.
        """
        return pd.DataFrame(list(self.rows), columns=list(_COLUMNS)).astype(_TYPES)

    def to_json(self) -> str:
        """The same as JSON, NaN as null, with the totals and the conventions."""
        rows = [{k: _jsonable(v) for k, v in row.items()} for row in self.rows]
        whole = {
            "name": self.name,
            "parameters": self.parameters,
            "macs": self.macs,
            "conventions": CONVENTIONS,
            "not_understood": [list(pair) for pair in self.not_understood],
            "shares": self.shares,
            "also": self.also,
            "rows": rows,
        }
        return json.dumps(whole, indent=1, allow_nan=False)

    def to_html(self, path: str | Path) -> None:
        """Write one self-contained page: totals, a picture of channels, sortable tables."""
        from krratio.auditing.reports.html import html  # which needs this class

        write_text(path, html(self))

    def plot(self, axis: "Axes | None" = None) -> "Axes":
        """Draw K against R of all blocks, coloured by class, with lines of equal K/R."""
        from krratio.auditing.reports.picture import draw  # matplotlib, only where it is drawn

        return draw(self, axis)

    def summary(self) -> str:
        """A few lines: totals, blocks by class and ratio, what was not understood, conventions."""
        frame = self.to_frame()
        found = frame[frame["level"] == "block"]
        lines = [f"{self.name}: {self.parameters:,} parameters, {self.macs:,} multiply-adds"]
        for (kind, ratio, redundancy), part in found.groupby(
            ["kind", "ratio", "redundancy"], sort=False
        ):
            lines.append(f"  {len(part):3d} x {kind}, K/R = {ratio:.3g}: {redundancy}")
        if found.empty:
            lines.append("  no block: no spatial convolution leads to a pointwise one on one path")
        for name, share in self.shares.items():
            lines.append(f"  {share:6.1%} of the parameters: {name}")
        for name, share in self.also.items():
            lines.append(f"  {share:6.1%} of them also: {name}")
        for module, operator in self.not_understood:
            lines.append(f"  not understood: {operator} in '{module}'")
        return "\n".join([*map(printable, lines), CONVENTIONS])


def audit(
    model: nn.Module,
    input_shape: Input | Sequence[Input],
    *,
    name: str | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Find K, R and their redundancy everywhere in a network.

    Parameters
    ----------
    model
        Any module, on any device; ``"meta"`` too. It is run once, on shapes alone, in eval mode,
        and left as it was; :func:`krratio.auditing.walking.walk.walk` says what cannot be seen.
    input_shape
        Shape of the input without the batch, or one for each of several inputs; a dict gives
        arguments by name, and one inside a list is an argument that is a dict. Where a shape says
        too little, such as for integers, a tensor stands for it, on any device and with its batch;
        its values are not read.
    name
        Of the report; the type of the network by default.
    progress
        Called with how many modules were entered, and how many there are, as the forward proceeds.

    Returns
    -------
    Audit

    Raises
    ------
    ForwardError
        The forward raises, or its control flow depends on data; the message holds the module.
    ModelError
        It is no module.
    ShapeError
        An input is neither a tuple of positive integers nor a tensor, or larger than any tensor.

    Notes
    -----
    A block is a spatial convolution that leads to a pointwise layer on one data path, with nothing
    but normalization, activations, gates and shuffles between; K are the channels that the
    pointwise layer puts out and R those that enter it. Redundancy classes:
    :func:`krratio.auditing.structure.blocks.classes`.
    """
    flow = Flow(walk(model, inputs_of(input_shape), progress))
    recurrent = recurrent_layers(flow.walk)
    by_operation: dict[int, MixingLayer | RecurrentLayer] = {**flow.at, **recurrent}
    rows = [_layer_row(flow, by_operation[i]) for i in sorted(by_operation)]
    found = blocks(flow)
    block_rows = [_block_row(flow, block) for block in found]
    rows += block_rows
    rows += [_chain_row(flow, chain) for chain in chains(flow)]
    unknown = {(m, f"{op} of a constant"): None for m, op in flow.walk.unseen}
    for i, operation in enumerate(flow.walk.operations):
        computed = role_of(operation.name) in _WITH_WEIGHT and not _product(flow, i)
        if flow.role(i) is Role.UNKNOWN:
            unknown[operation.module, operation.name] = None
        elif computed and i not in by_operation:
            unknown[operation.module, f"{operation.name} with a reshaped or computed weight"] = None
    return Audit(
        name or type(model).__name__,
        tuple(rows),
        flow.walk.parameters,
        sum(layer.macs for layer in by_operation.values()),
        *_shares(flow, found, block_rows),
        tuple(unknown),
    )


def _product(flow: Flow, i: int) -> bool:
    """Whether an operation multiplies two values that depend on the input."""
    return flow.role(i) is Role.MULTIPLY and flow.joins(i)


def _shares(
    flow: Flow, found: Sequence[Block], rows: Sequence[dict[str, Any]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Share of the parameters by class of the first block that uses them, and by further ones."""
    counted: list[MixingLayer] = []
    before = 0
    sums: dict[str, int] = {}
    further: dict[str, int] = {}
    for block, row in zip(found, rows, strict=True):
        counted += block.layers
        so_far = sum(parameters_of(flow.walk, counted).values())
        before, size = so_far, so_far - before
        sums[row["redundancy"]] = sums.get(row["redundancy"], 0) + size
        for name in filter(None, row["also"].split(", ")):
            further[name] = further.get(name, 0) + size
    whole = max(1, flow.walk.parameters)
    sums["no block"] = flow.walk.parameters - sum(sums.values())
    shares, also = ({k: n / whole for k, n in part.items()} for part in (sums, further))
    return shares, also


_COLUMNS = (
    "level name kind K R ratio fan_in_rank params naive covering excess redundancy also macs"
).split()
_WITH_WEIGHT = (Role.CONV, Role.MATRIX, Role.LOOKUP, Role.RECURRENT)
_OTHERS = 3  # layers beside a block's own in the module it is called by: a shortcut, a gate
_TYPES = dict.fromkeys(("K", "R", "ratio", "fan_in_rank", "naive", "covering", "excess"), "float64")


def _row(level: str, name: str, kind: str, *, K: int, R: int, **others: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_COLUMNS, math.nan)
    row |= {"level": level, "name": name, "kind": kind, "K": K, "R": R, "ratio": K / R}
    return row | others


def _classes(flow: Flow, value: int, K: int, R: int, extra: Sequence[str] = ()) -> dict[str, str]:
    first, *rest = [*classes(flow, value, K=K, R=R), *extra]
    return {"redundancy": first, "also": ", ".join(rest)}


def _layer_row(flow: Flow, layer: MixingLayer | RecurrentLayer) -> dict[str, Any]:
    rank = layer.fan_in_rank
    return _row(
        "layer",
        layer.title,
        layer.kind,
        K=layer.K,
        R=rank,
        fan_in_rank=rank,
        params=layer.parameters,
        naive=layer.entries,
        macs=layer.macs,
        **_classes(flow, layer.target, layer.K, rank),
    )


def _block_row(flow: Flow, block: Block) -> dict[str, Any]:
    parts = block.layers
    excess = block.naive - block.covering
    extra = ["saturated"] * block.saturated + ["bound only"] * (excess < 0)
    return _row(
        "block",
        _common(flow, parts),
        block.kind,
        K=block.K,
        R=block.R,
        fan_in_rank=block.pointwise.fan_in_rank,
        params=sum(parameters_of(flow.walk, parts).values()),
        naive=block.naive,
        covering=block.covering,
        excess=excess,
        macs=sum(p.macs for p in parts),
        **_classes(flow, block.pointwise.target, block.K, block.R, extra),
    )


def _chain_row(flow: Flow, chain: Chain) -> dict[str, Any]:
    widest = chain.widest
    rank = chain.ranks[widest.operation]
    first, last = chain.layers[0], chain.layers[-1]
    return _row(
        "chain",
        f"{first.title} ... {last.title}",
        f"linear run of {len(chain.layers)}",
        K=widest.K,
        R=rank,
        params=sum(parameters_of(flow.walk, chain.layers).values()),
        naive=chain.naive,
        macs=sum(p.macs for p in chain.layers),
        **_classes(flow, widest.target, widest.K, rank),
    )


def _common(flow: Flow, parts: Sequence[MixingLayer]) -> str:
    """The innermost module that holds the layers and few others, or the first and last of them."""
    split = [part.title.split(".") for part in parts]
    shared = []
    for level in zip(*split, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    path = ".".join(shared)
    inside = sum(layer.title.startswith(f"{path}.") for layer in flow.layers)
    few = path and inside <= len(parts) + _OTHERS
    return path if few else f"{parts[0].title} ... {parts[-1].title}"


def _jsonable(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
