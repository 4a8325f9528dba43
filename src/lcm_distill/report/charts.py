# The types of matplotlib are partial.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""Line charts as PNG files or within a page. Matplotlib is imported when a chart is drawn."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from math import log
from pathlib import Path
from textwrap import wrap
from typing import Any

COLOURS = ("#1b6ca8", "#d1495b", "#edae49", "#2e8b57", "#6a4c93", "#5c5f66")
MARKS = ("o", "s", "^", "D", "v")
BROKEN = ("--", ":", "-.", (0, (8, 2, 1, 2, 1, 2)), (0, (10, 4)), (0, (1, 4)))
"""Strokes of horizontal lines, which repeat them."""
STROKES = ("-", *BROKEN)
SIZE = (6.4, 4.4)
"""Width and height of a panel, in inches."""
ACROSS = 2
"""Panels beside each other at most: of three the text could not be read on a page."""
APART = 0.06
"""Least distance of two tick labels, as a share of a logarithmic axis."""
LABEL_WIDTH, TITLE_WIDTH = 42, 64
"""Letters of an axis label, and of a title above one panel, which are broken where they are longer."""
SINGLE, BESIDE = 10, 12
"""Size of the text of one panel, and of several, which are shown smaller: 13 pixels where both are 1,000 wide."""
SHORT = 36
"""Letters of labels of which two stand beside each other in a legend, whose text is always that of one panel."""
INK = "#28282c"
STYLE: Any = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
"""Settings of matplotlib by which text and axes have the colour of ink."""


@dataclass(frozen=True)
class Line:
    """One series of points.

    Attributes:
        x, y: coordinates. spread: half the length of each point's error bar.
        colour, mark, stroke: indices into `COLOURS`, which repeat with the next mark and stroke, `MARKS` and
            `STROKES`.
        label: in the legend; None for points that share another line's entry.
        joined: whether a line connects the points. marked: whether each point has a mark.
    """

    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float]
    colour: int
    label: str | None = None
    joined: bool = True
    marked: bool = True
    mark: int = 0
    stroke: int = 0


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        horizontals: horizontal lines, label and height.
        logarithmic, logarithmic_x: whether the y axis and the x axis are logarithmic.
        ticks: names of x = 0, 1, 2 ...; empty where x is a quantity.
        band: lower and upper end of a shaded range of x, and its label.
        whole_x: whether x counts, so that it has ticks at whole numbers alone.
    """

    x_label: str
    y_label: str
    lines: Sequence[Line]
    logarithmic: bool = False
    horizontals: Sequence[tuple[str, float]] = ()
    ticks: Sequence[str] = ()
    band: tuple[float, float, str] | None = None
    logarithmic_x: bool = False
    whole_x: bool = False


def draw_chart(panels: Sequence[Panel], title: str, path: Path) -> None:
    """Panels in rows, into a PNG file at `path`."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**STYLE, "font.size": SINGLE if len(panels) == 1 else BESIDE}):
        across, down = min(len(panels), ACROSS), -(-len(panels) // ACROSS)
        figure = Figure(figsize=(SIZE[0] * across, SIZE[1] * down), layout="constrained")
        parts = figure.subfigures(down, across, squeeze=False)
        for panel, part in zip(panels, parts.flat, strict=False):
            _draw_panel(panel, part)
        figure.suptitle(_broken(title, TITLE_WIDTH * across))
        figure.savefig(path, format="png", dpi=130)


def panel_svg(panel: Panel, name: str) -> str:
    """A panel as an `svg` element without background, its text and axes in the colour of the text around it.

    Args:
        name: of the chart, distinct in a page: references within the element are made of it.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    content = io.StringIO()
    with rc_context({**STYLE, "svg.fonttype": "none", "svg.hashsalt": name}):
        figure = Figure(figsize=SIZE, layout="constrained")
        _draw_panel(panel, figure)
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    svg = content.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def _draw_panel(panel: Panel, figure: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots()
    for line in panel.lines:
        _draw_line(line, axes)
    for style, (label, height) in zip(cycle(BROKEN), panel.horizontals, strict=False):
        axes.axhline(height, label=label, color=INK, linestyle=style, linewidth=1)
    if panel.band:
        low, high, label = panel.band
        axes.axvspan(low, high, label=label, color=INK, alpha=0.06)
    if panel.ticks:
        axes.set_xticks(range(len(panel.ticks)), panel.ticks, rotation=30, ha="right")
    axes.set(xlabel=panel.x_label, ylabel=_broken(panel.y_label, LABEL_WIDTH))
    if panel.logarithmic:
        _scale_logarithmically(axes.set_yscale, axes.yaxis)
    if panel.whole_x:
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    if panel.logarithmic_x:
        _scale_logarithmically(axes.set_xscale, axes.xaxis)
        if ticks := _ticks([x for line in panel.lines for x in line.x]):
            axes.set_xticks(ticks)
            axes.set_xticks([], minor=True)
    axes.grid(True, which="both", axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if labels := axes.get_legend_handles_labels()[1]:
        columns = 2 if max(map(len, labels)) <= SHORT else 1
        figure.legend(frameon=False, loc="outside lower center", ncols=columns, handlelength=3, fontsize=SINGLE)


def _draw_line(line: Line, axes: Any) -> None:
    colour, again = line.colour % len(COLOURS), line.colour // len(COLOURS)
    stroke = STROKES[(line.stroke + again) % len(STROKES)] if line.joined else "none"
    mark = MARKS[(line.mark + again) % len(MARKS)] if line.marked else None
    axes.plot(line.x, line.y, label=line.label, color=COLOURS[colour], marker=mark, linestyle=stroke)
    if any(line.spread):
        axes.errorbar(line.x, line.y, line.spread, color=COLOURS[colour], linestyle="none", capsize=3)


def _broken(text: str, letters: int) -> str:
    """Text in lines of at most so many letters."""
    return "\n".join(part for line in text.split("\n") for part in wrap(line, letters) or [""])


def _ticks(values: Sequence[float]) -> list[float]:
    """Those of the positive values of a logarithmic axis whose labels do not meet, from the lowest on."""
    shown = list[float]()
    for value in sorted(set(values)):
        if not shown or log(value / shown[-1]) >= APART * log(max(values) / min(values)):
            shown.append(value)
    return shown


def _scale_logarithmically(set_scale: Any, axis: Any) -> None:
    """With plain numbers: at 1, 2 and 5 of every power of ten, within a decade at every digit, within less at more."""
    from matplotlib.ticker import AutoLocator, LogLocator, NullFormatter, StrMethodFormatter

    set_scale("log")
    low, high = axis.get_view_interval()
    digits = LogLocator(subs=(1, 2, 5) if high > 10 * low else range(1, 10))
    axis.set_major_locator(digits if high > 3 * low else AutoLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
