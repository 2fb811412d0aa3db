"""One look for every figure, and the one way to save one: picture, print version and numbers."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.api import types

from krratio import paths
from krratio.errors import FigureError
from krratio.figure_ids import is_figure_id
from krratio.writing import write_whole

__all__ = [
    "DIVERGING",
    "MARKERS",
    "PALETTE",
    "SEQUENTIAL",
    "WIDTHS",
    "SavedFigure",
    "data_ticks",
    "figures_folder",
    "lines_with_intervals",
    "new_figure",
    "save",
    "use_style",
]

PALETTE: tuple[str, ...] = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
"""Okabe and Ito's colour-blind safe colours; their yellow is left out, it vanishes on white."""

MARKERS: tuple[str, ...] = ("o", "s", "^", "D", "v", "P", "X")
"""One marker per colour of `PALETTE`, so that no figure relies on colour alone."""

SEQUENTIAL = "cividis"
"""Colour map for magnitudes, made for colour-blind readers."""

DIVERGING = "RdBu_r"
"""Colour map for signed values; centre it on zero."""

WIDTHS: dict[int, float] = {1: 3.5, 2: 7.2}
"""Widths in inches of a figure over one and over two columns of a journal page."""

FLOAT_FORMAT = "%.10g"  # four digits more than are compared, and no rounding noise of the last bits
PNG_DPI = 300

STYLE: dict[Any, Any] = {
    "figure.dpi": 120,  # on screen; files have their own
    "figure.constrained_layout.use": True,
    "savefig.dpi": PNG_DPI,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",  # looks the same where the fonts are missing
    "svg.hashsalt": "krratio",  # element names that are the same in every run
    # DejaVu comes with matplotlib: no figure depends on the fonts of a machine.
    "font.family": "DejaVu Sans",
    "mathtext.fontset": "dejavusans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "axes.prop_cycle": cycler(color=list(PALETTE)),
    "axes.formatter.use_mathtext": True,
    "image.cmap": SEQUENTIAL,
    "image.interpolation": "nearest",
}


@dataclass(frozen=True, repr=False)
class SavedFigure:
    """Where the three files of a figure lie; printed without the folder, which is not stable."""

    svg: Path
    png: Path
    csv: Path

    def __repr__(self) -> str:
        return f"<figure {self.csv.stem}: svg, png, csv>"


def use_style() -> None:
    """Set the style of all figures made from here on, whatever the user's own matplotlibrc says."""
    mpl.rcdefaults()  # leaves the backend alone
    for key, value in STYLE.items():
        mpl.rcParams[key] = value
    _show_as_saved()


def _show_as_saved() -> None:
    """Let a notebook show a figure as it is saved: uncropped, and without matplotlib's version."""
    if "inline" not in mpl.rcParams["backend"]:
        return
    from matplotlib_inline.config import InlineBackend

    shown: dict[str, Any] = {"bbox_inches": None, "metadata": {"Software": None}}
    InlineBackend.instance().print_figure_kwargs = shown


def new_figure(
    columns: Literal[1, 2] = 1, height: float | None = None, **subplots: Any
) -> tuple[Figure, Any]:
    """Make a figure of journal width in the one style.

    Parameters
    ----------
    columns : {1, 2}, default 1
        Over how many columns of a page the figure goes: 3.5 or 7.2 inches.
    height : float, optional
        In inches; by default the golden section of a single column per row of axes.
    **subplots
        Passed on to `matplotlib.pyplot.subplots`, such as ``nrows``, ``ncols``, ``sharey``.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : Axes or ndarray of Axes
        As `matplotlib.pyplot.subplots` returns them.

    Raises
    ------
    FigureError
        If `columns` is neither 1 nor 2, or `height` is not positive.
    """
    if columns not in WIDTHS:
        raise FigureError(f"columns is {columns!r}; a figure goes over 1 or 2 columns")
    if height is None:
        height = 2.3 * int(subplots.get("nrows", 1))
    if not height > 0:
        raise FigureError(f"height is {height!r}; give a positive number of inches")
    use_style()
    return plt.subplots(figsize=(WIDTHS[columns], height), **subplots)


def lines_with_intervals(
    axes: Axes, frame: pd.DataFrame, x: str, y: str, *, group: str, label: str, apart: float = 1.0
) -> None:
    """Draw ``y`` with its interval against ``x``, one line, colour and marker for each group.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    frame : pandas.DataFrame
        With the columns `x`, `y`, ``y_low``, ``y_high`` and `group`.
    x, y, group : str
        Names of columns; groups are drawn in the order of their values.
    label : str
        Text of the legend, with ``{}`` where the group's value goes.
    apart : float, default 1
        Ratio of the places of neighbouring groups: on a logarithmic axis, more than 1 keeps equal
        values from hiding each other.
    """
    groups = list(frame.groupby(group))
    for i, (value, rows) in enumerate(groups):
        axes.errorbar(
            rows[x] * apart ** (i - (len(groups) - 1) / 2),
            rows[y],
            yerr=[rows[y] - rows[f"{y}_low"], rows[f"{y}_high"] - rows[y]],
            label=label.format(value),
            color=PALETTE[i],
            marker=MARKERS[i],
            elinewidth=0.8,
        )


def data_ticks(axes: Axes, values: Iterable[float]) -> None:
    """Make the x-axis logarithmic, with ticks where there are data and nowhere else."""
    ticks = sorted(set(values))
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def figures_folder() -> Path:
    """Return where `save` writes: ``$KRRATIO_FIGURES``, else ``figures/local`` of the clone."""
    chosen = os.environ.get("KRRATIO_FIGURES")
    return Path(chosen) if chosen else paths.FIGURES / "local"


def save(figure: Figure, figure_id: str, frame: pd.DataFrame) -> SavedFigure:
    """Write a figure as SVG and PNG, and the numbers that it shows as CSV.

    The same figure gives the same bytes in every run on a machine. Only ``krratio reproduce``
    writes the committed figures; by hand this writes to `figures_folder`.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    figure_id : str
        Lower-case words joined by dashes, as registered in ``notebooks/figures.yaml``.
    frame : pandas.DataFrame
        Exactly what the picture shows, tidy: one observation per row, one variable per column,
        no index but the row number. Numbers are written with ten digits.

    Returns
    -------
    SavedFigure
        The paths ``svg``, ``png`` and ``csv``.

    Raises
    ------
    FigureError
        If the id is not lower-case words joined by dashes, or the frame is empty or not tidy.
    """
    if not is_figure_id(figure_id):
        raise FigureError(
            f"figure id {figure_id!r}: use lower-case letters and digits joined by single dashes, "
            "such as 'accuracy-against-channels'"
        )
    _check_tidy(figure_id, frame)
    folder = figures_folder()
    folder.mkdir(parents=True, exist_ok=True)
    saved = SavedFigure(*(folder / f"{figure_id}.{kind}" for kind in ("svg", "png", "csv")))
    write_whole(saved.svg, lambda to: _picture(figure, to, {"Date": None, "Creator": None}))
    write_whole(saved.png, lambda to: _picture(figure, to, {"Software": None}))
    write_whole(saved.csv, lambda to: _table(frame, to))
    return saved


def _picture(figure: Figure, to: Path, metadata: dict[str, None]) -> None:
    kind = to.suffixes[-2].removeprefix(".")
    with mpl.rc_context():  # some settings act when a figure is written, not when it is made
        use_style()
        figure.savefig(to, format=kind, dpi=PNG_DPI, bbox_inches=None, metadata=metadata)


def _table(frame: pd.DataFrame, to: Path) -> None:
    frame.to_csv(to, index=False, float_format=FLOAT_FORMAT, lineterminator="\n", encoding="utf-8")


def _check_tidy(figure_id: str, frame: pd.DataFrame) -> None:
    problem = _untidy(frame)
    if problem:
        raise FigureError(f"figure {figure_id!r}: {problem}")


def _untidy(frame: object) -> str | None:
    """Say what keeps `frame` from being a tidy table of plain numbers and text, if anything."""
    if not isinstance(frame, pd.DataFrame):
        return f"its data are a {type(frame).__name__}; give a pandas DataFrame"
    if frame.empty:
        return f"its data are empty, shape {frame.shape}; give what the picture shows"
    if not frame.index.equals(pd.RangeIndex(len(frame))):
        return "its rows have an index, which the CSV would lose; call .reset_index() first"
    columns = list(frame.columns)
    if not all(isinstance(name, str) and name for name in columns):
        return f"its columns {columns} are not all named by text; rename them"
    if len(set(columns)) < len(columns):
        return f"its columns {columns} repeat a name; rename them"
    for name in columns:
        if not _is_plain(frame[name]):
            return (
                f"its column {name!r} ({frame[name].dtype}) holds other things than real numbers, "
                "truth values or text; convert it"
            )
    return None


def _is_plain(column: "pd.Series[Any]") -> bool:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return _is_plain(pd.Series(column.cat.categories))
    if types.is_bool_dtype(column) or types.is_string_dtype(column):
        return all(isinstance(value, str | bool | np.bool_) or pd.isna(value) for value in column)
    if types.is_numeric_dtype(column):
        return not types.is_complex_dtype(column)
    return types.is_object_dtype(column) and all(isinstance(value, str) for value in column)
