"""A network drawn as the chain of its channels: a layer is as high as the channels on each side."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon, Rectangle
from torch import nn

from krratio.auditing.designs.sketch import Glyph, glyphs, lanes, lines
from krratio.auditing.structure.flow import Flow
from krratio.auditing.walking.inputs import shapes_of
from krratio.auditing.walking.walk import walk
from krratio.errors import FigureError
from krratio.plotting import PALETTE, WIDTHS, new_figure

__all__ = ["channel_diagram", "channel_figure", "channel_lines"]

Shape = tuple[int, ...]

_MOST = 60
"""Glyphs beyond which a picture cannot be read; the page of an audit has one for whole networks."""
_HALF = {"layer": 0.3, "join": 0.26, "split": 0.26, "shuffle": 0.2, "pool": 0.3, "input": 0.0}
_SMALL = 0.16  # half width of the other glyphs
_GAP = 0.4  # between two glyphs: room for two digits
_LEAST, _MORE = 0.3, 0.9  # height of no channels, and what the most channels add to it
_LANE = 1.45
_OVER = 0.95  # of a line over everything else
_STRIPES = 4  # drawn for a grouped layer, at most
_TITLE = 0.2  # inches
_LINE = "#444444"
_COUNTED = ("input", "layer", "join", "split")  # the channels behind all others are as before them
_COLOURS = {"pointwise": PALETTE[5], "spatial": PALETTE[4], "grouped": PALETTE[2]}


def channel_diagram(
    model: nn.Module, input_shape: Shape | Sequence[Shape], axis: Axes | None = None
) -> Axes:
    """Draw a block from what it computes: nothing is read but one forward on shapes.

    A layer is a trapezoid whose left and right side stand for the channels that enter and leave,
    orange where it is spatial, blue where pointwise, green and cut into stripes where it has groups
    (one stripe a group, four at most). Numbers are channels; σ is an activation, N a normalization.

    Parameters
    ----------
    model, input_shape
        As for :func:`krratio.audit`.
    axis
        Drawn on; a new figure by default.

    Raises
    ------
    FigureError
        There are more than 60 glyphs: draw a block, not a network.
    ForwardError
        As :func:`krratio.audit`.
    """
    axis = plt.figure(figsize=(3.5, 1.6), layout="constrained").gca() if axis is None else axis
    picture = _Picture(_glyphs(model, input_shape))
    picture.draw(axis)
    left, right, low, top = picture.box
    axis.set(xlim=(left, right), ylim=(low, top))
    return axis


def channel_figure(blocks: Mapping[str, tuple[nn.Module, Shape]]) -> Figure:
    """Draw several blocks under their titles, two in a row, all on one scale."""
    pictures = [_Picture(_glyphs(*block)) for block in blocks.values()]
    boxes = [picture.box for picture in pictures]
    wide = max(right - left for left, right, _, _ in boxes)
    rows = [boxes[i : i + 2] for i in range(0, len(boxes), 2)]
    high = [max(top - low for _, _, low, top in row) for row in rows]
    inches = WIDTHS[2] / 2 / wide
    figure, axes = new_figure(
        2,
        sum(high) * inches + _TITLE * len(rows),
        nrows=len(rows),
        ncols=2,
        squeeze=False,
        height_ratios=[h * inches + _TITLE for h in high],
    )
    for axis in axes.flat[len(blocks) :]:
        axis.axis("off")
    for i, (title, picture) in enumerate(zip(blocks, pictures, strict=True)):
        axis, (left, right, low, _) = axes.flat[i], boxes[i]
        picture.draw(axis)
        middle = (left + right) / 2
        limits = (middle - wide / 2, middle + wide / 2)
        axis.set(title=title, xlim=limits, ylim=(low, low + high[i // 2]), anchor="S")
    return figure


def channel_lines(blocks: Mapping[str, tuple[nn.Module, Shape]]) -> pd.DataFrame:
    """Every line of :func:`channel_figure`: ``block``, ``from``, ``to`` and its ``channels``."""
    parts = [lines(_glyphs(*block)).assign(block=title) for title, block in blocks.items()]
    return pd.concat(parts, ignore_index=True)[["block", "from", "to", "channels"]]


def _glyphs(model: nn.Module, input_shape: Shape | Sequence[Shape]) -> list[Glyph]:
    found = glyphs(Flow(walk(model, shapes_of(input_shape))))
    if len(found) > _MOST:
        raise FigureError(f"{len(found)} glyphs, of {_MOST} that can be read: draw a single block")
    return found


class _Picture:
    """Glyphs with their places: lanes, and positions along the way."""

    def __init__(self, found: list[Glyph]) -> None:
        self.found, self.lane, self.x = found, lanes(found), _places(found)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, right, lower and upper end."""
        found, lane, x = self.found, self.lane, self.x
        over = _OVER + 0.35 if _skips(found, lane) else 0.65
        low = -1.25 if any(glyph.groups > 1 for glyph in found) else -0.95
        return x[0] - 0.1, x[-1] + _half(found[-1]) + 0.75, low, max(lane) * _LANE + over

    def draw(self, axis: Axes) -> None:
        """Everything but the limits of the axis."""
        found, lane, x = self.found, self.lane, self.x
        most = max(max((*glyph.widths, glyph.channels)) for glyph in found)
        height = {n: _LEAST + _MORE * n / most for g in found for n in (*g.widths, g.channels)}
        for i, glyph in enumerate(found):
            for source, width in zip(glyph.sources, glyph.widths, strict=True):
                _line(axis, found, lane, x, (source, i), width)
            _glyph(axis, glyph, (x[i], lane[i] * _LANE), height)
        end = x[-1] + _half(found[-1])
        axis.plot([end, end + _GAP], [lane[-1] * _LANE] * 2, color=_LINE, linewidth=1, zorder=0)
        _count(axis, end + 0.05, lane[-1] * _LANE, found[-1].channels)
        axis.set_aspect("equal")
        axis.axis("off")


def _half(glyph: Glyph) -> float:
    return _HALF.get(glyph.kind, _SMALL)


def _places(found: list[Glyph]) -> list[float]:
    """Position of each glyph along the way: behind everything that it reads."""
    x: list[float] = []
    for glyph in found:
        behind = [x[s] + _half(found[s]) + _GAP + _half(glyph) for s in glyph.sources]
        x.append(max(behind, default=0.0))
    return x


def _between(lane: list[int], line: tuple[int, int]) -> bool:
    """Whether a straight line would run through another glyph."""
    start, stop = line
    return lane[start] == lane[stop] and lane[start] in lane[start + 1 : stop]


def _skips(found: list[Glyph], lane: list[int]) -> bool:
    ways = [(s, i) for i, glyph in enumerate(found) for s in glyph.sources]
    return any(_between(lane, way) for way in ways)


def _line(
    axis: Axes,
    found: list[Glyph],
    lane: list[int],
    x: list[float],
    line: tuple[int, int],
    width: int,
) -> None:
    start, stop = line
    a, b = x[start] + _half(found[start]), x[stop] - _half(found[stop])
    low, high = lane[start] * _LANE, lane[stop] * _LANE
    ways = ([a, b], [low, high])
    label = (a + 0.04, low)
    if _between(lane, line):  # over everything that lies between
        over, turn = max(lane) * _LANE + _OVER, a + _GAP - 0.06
        ways = ([a, turn, turn, x[stop], x[stop]], [low, low, over, over, high])
        label = ((turn + x[stop]) / 2, over)
    elif low != high:
        turn = a + _GAP - 0.06 if low < high else x[stop]
        ways = ([a, turn, turn, b if low < high else turn], [low, low, high, high])
        label = (turn + 0.06, high) if low < high else label
    axis.plot(*ways, color=_LINE, linewidth=1, zorder=0)
    if found[start].kind in _COUNTED or width != found[start].channels:
        _count(axis, *label, width)


def _count(axis: Axes, x: float, y: float, channels: int) -> None:
    axis.text(x, y + 0.06, str(channels), fontsize=7, ha="left", va="bottom", color=_LINE)


def _glyph(axis: Axes, glyph: Glyph, at: tuple[float, float], height: dict[int, float]) -> None:
    x, y = at
    half = _half(glyph)
    if glyph.kind == "layer":
        _layer(axis, glyph, at, height[glyph.widths[0]] / 2, height[glyph.channels] / 2)
    elif glyph.kind == "shuffle":
        for sign in (1, -1):
            axis.plot([x - half, x + half], [y - sign * half, y + sign * half], color=_LINE)
    elif glyph.kind in ("join", "split", "activation", "norm"):
        fill = "white" if glyph.kind != "activation" else "#e6e6e6"
        axis.add_patch(Circle(at, half, facecolor=fill, edgecolor=_LINE, linewidth=0.8))
        size = 6 if glyph.kind == "split" else 7
        axis.text(x, y, glyph.text, fontsize=size, ha="center", va="center")
    elif glyph.kind == "pool":
        axis.add_patch(
            Rectangle((x - half, y - 0.3), 2 * half, 0.6, facecolor="white", edgecolor=_LINE)
        )
        axis.text(x, y, glyph.text, fontsize=7, ha="center", va="center")


def _layer(axis: Axes, glyph: Glyph, at: tuple[float, float], left: float, right: float) -> None:
    x, y = at
    half, stripes = _HALF["layer"], min(glyph.groups, _STRIPES)
    kind = "grouped" if glyph.groups > 1 else "pointwise" if glyph.pointwise else "spatial"
    for k in range(stripes):
        low, high = 2 * k / stripes - 1, 2 * (k + (1 if stripes == 1 else 0.8)) / stripes - 1
        corners = [
            (x - half, y + low * left),
            (x + half, y + low * right),
            (x + half, y + high * right),
            (x - half, y + high * left),
        ]
        axis.add_patch(Polygon(corners, facecolor=_COLOURS[kind], edgecolor=_LINE, linewidth=0.6))
    axis.text(x, y - 0.68, glyph.text, fontsize=7, ha="center", va="top")
    if glyph.groups > 1:
        depthwise = glyph.groups == glyph.widths[0]
        label = "dw" if depthwise else f"g={glyph.groups}"
        axis.text(x, y - 0.96, label, fontsize=7, ha="center", va="top")
