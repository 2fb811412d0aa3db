"""A network as glyphs and the channels that run between them, read off its walk."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from krratio.auditing.structure.flow import Flow
from krratio.auditing.walking.kinds import Role

__all__ = ["Glyph", "glyphs", "lanes", "lines"]

Kind = Literal["input", "layer", "activation", "norm", "join", "split", "shuffle", "pool"]

_SIGNS = {Role.ADD: "+", Role.MULTIPLY: "×", Role.CONCAT: "cat"}
_DRAWN: dict[Role, Kind] = {
    Role.ACTIVATION: "activation",
    Role.NORM: "norm",
    Role.BATCH_NORM: "norm",
    Role.AVERAGE: "pool",
    Role.MAXIMUM: "pool",
}


@dataclass(frozen=True)
class Glyph:
    """One thing that is drawn.

    Attributes
    ----------
    kind
        What it is.
    text
        What stands at it, such as ``"3×3"``.
    sources
        Glyphs whose channels it reads, by number; they come earlier.
    widths
        Channels that it reads of each.
    channels
        Channels that it puts out.
    groups
        Of a convolution.
    pointwise
        Whether a layer mixes channels at one place.
    """

    kind: Kind
    text: str
    sources: tuple[int, ...]
    widths: tuple[int, ...]
    channels: int
    groups: int = 1
    pointwise: bool = False


def glyphs(flow: Flow) -> list[Glyph]:
    """Inputs, layers, activations, norms, joins, splits, shuffles, pooling, in order."""
    found: list[Glyph] = []
    of: dict[int, tuple[int, int]] = {}  # value -> the glyph that made it, and its channels
    for value, shape in flow.walk.shapes.items():
        if value not in flow.makers:
            of[value] = len(found), shape[1]
            found.append(Glyph("input", "", (), (), shape[1]))
    for i, operation in enumerate(flow.walk.operations):
        values, drawn = list(dict.fromkeys(operation.inputs)), _drawn(flow, i)
        made, channels = of[values[0]]
        if drawn is not None:
            kind, text = drawn
            if kind not in ("shuffle", "split"):
                channels = flow.walk.shapes[operation.outputs[0]][1]
            sources, widths = zip(*(of[v] for v in values), strict=True)
            layer, made = flow.at.get(i), len(found)
            groups = 1 if layer is None else layer.groups
            pointwise = layer is not None and layer.pointwise
            found.append(Glyph(kind, text, sources, widths, channels, groups, pointwise))
        for output in operation.outputs:
            part = flow.walk.shapes[output][1] if _splits(flow, i) else channels
            of[output] = made, part
    return found


def _splits(flow: Flow, i: int) -> bool:
    """Whether an operation takes some channels of all."""
    operation = flow.walk.operations[i]
    if flow.role(i) is not Role.MOVE:
        return False
    before, after = (flow.walk.shapes[v] for v in (operation.inputs[0], operation.outputs[0]))
    return len(before) == len(after) and before[2:] == after[2:] and after[1] < before[1]


def _drawn(flow: Flow, i: int) -> tuple[Kind, str] | None:
    """Kind and text of an operation's glyph; None for what only moves or scales."""
    operation, role = flow.walk.operations[i], flow.role(i)
    if i in flow.at:
        kernel = operation.shapes[1][2:] if role is Role.CONV else ()
        return "layer", "×".join(map(str, kernel)) or "FC"
    if role in _SIGNS:
        return ("join", _SIGNS[role]) if flow.joins(i) else None
    if role in _DRAWN:
        return _DRAWN[role], {"activation": "σ", "norm": "N", "pool": "pool"}[_DRAWN[role]]
    if _splits(flow, i):
        return "split", "split"
    grouped = len(operation.shapes[0]) > len(flow.walk.shapes[0])
    shuffles = operation.name in ("transpose", "permute") and grouped
    return ("shuffle", "") if shuffles or "channel_shuffle" in operation.name else None


def lanes(found: list[Glyph]) -> list[int]:
    """Lane of each glyph: 0 on the longest way through, the next free one beside it."""
    steps = [0] * len(found)
    for i, glyph in enumerate(found):
        steps[i] = max((steps[s] + 1 for s in glyph.sources), default=0)
    main, here = set(), max(range(len(found)), key=lambda i: steps[i])
    while True:
        main.add(here)
        if not found[here].sources:
            break
        here = max(found[here].sources, key=lambda s: steps[s])
    lane = [0] * len(found)
    for i, glyph in enumerate(found):
        if i not in main:
            beside = [lane[s] for s in glyph.sources if s not in main]
            taken = {lane[j] for j in range(i) if j not in main and steps[j] == steps[i]}
            lane[i] = max(beside, default=next(n for n in range(1, i + 2) if n not in taken))
    return lane


def lines(found: list[Glyph]) -> pd.DataFrame:
    """Every line of the picture: ``from``, ``to`` and the ``channels`` on it."""
    return pd.DataFrame(list(_lines(found)), columns=["from", "to", "channels"])


def _lines(found: list[Glyph]) -> Iterator[tuple[str, str, int]]:
    names = [f"{i} {glyph.text or glyph.kind}" for i, glyph in enumerate(found)]
    for i, glyph in enumerate(found):
        for source, width in zip(glyph.sources, glyph.widths, strict=True):
            yield names[source], names[i], width
    read = {source for glyph in found for source in glyph.sources}
    for i, glyph in enumerate(found):
        if i not in read:
            yield names[i], "", glyph.channels
