"""A picture of an audit: K against R of every block."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from krratio.auditing.audit import Audit
from krratio.auditing.structure.blocks import CLASSES
from krratio.plotting import MARKERS, PALETTE

__all__ = ["draw"]


def draw(found: Audit, axis: Axes | None = None) -> Axes:
    """Draw K against R of all blocks, coloured by class, with lines of equal K/R."""
    axis = plt.figure(figsize=(3.4, 2.9), layout="constrained").gca() if axis is None else axis
    frame = found.to_frame()
    blocks = frame[frame["level"] == "block"]
    for i, name in enumerate(CLASSES):
        part = blocks[blocks["redundancy"] == name]
        if len(part):
            (points,) = axis.plot(part["R"], part["K"], MARKERS[i], color=PALETTE[i], alpha=0.7)
            points.set_label(f"{name} ({len(part)})")
    if len(blocks):
        ends = np.array([blocks["R"].min() / 1.5, blocks["R"].max() * 1.5])
        for ratio in (1, 4):
            axis.plot(ends, ratio * ends, color="0.6", linewidth=0.8, zorder=0)
            axis.annotate(f"K/R = {ratio}", (ends[1], ratio * ends[1]), ha="right", color="0.4")
        axis.legend(loc="upper left")
    axis.set(xscale="log", yscale="log", xlabel="channels $R$ that enter", ylabel="channels $K$")
    axis.set_title(found.name)
    return axis
