# The types of matplotlib are partial.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""Line charts as PNG files or within a page. Matplotlib is imported when a chart is drawn."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

COLOURS = ("#1b6ca8", "#d1495b", "#edae49", "#2e8b57", "#6a4c93", "#5c5f66")
MARKS = (("o", "-"), ("s", "--"), ("^", ":"))
"""Marks of points and strokes of lines: another pair where the colours begin again."""
STROKES = ("--", ":", "-.", (0, (8, 2, 1, 2, 1, 2)))
"""Of horizontal lines, which repeat them."""
INK = "#28282c"
STYLE: Any = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
"""Settings of matplotlib by which text and axes have the colour of ink."""


@dataclass(frozen=True)
class Line:
    """One series of points.

    Attributes:
        x, y: coordinates. spread: half the length of each point's error bar.
        colour: index into `COLOURS`, which repeat with other marks.
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


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        horizontals: horizontal lines, label and height.
        logarithmic, logarithmic_x: whether the y axis and the x axis are logarithmic.
        ticks: names of x = 0, 1, 2 ...; empty where x is a quantity.
        band: lower and upper end of a shaded range of x, and its label.
    """

    x_label: str
    y_label: str
    lines: Sequence[Line]
    logarithmic: bool = False
    horizontals: Sequence[tuple[str, float]] = ()
    ticks: Sequence[str] = ()
    band: tuple[float, float, str] | None = None
    logarithmic_x: bool = False


def draw_chart(panels: Sequence[Panel], title: str, path: Path) -> None:
    """Panels side by side, into a PNG file at `path`."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(8 * len(panels), 5.5), layout="constrained")
        for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
            _draw_panel(panel, axes)
        figure.suptitle(title)
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
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        _draw_panel(panel, figure.subplots())
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    svg = content.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def _draw_panel(panel: Panel, axes: Any) -> None:
    for line in panel.lines:
        mark, stroke = MARKS[line.colour // len(COLOURS) % len(MARKS)]
        axes.errorbar(
            line.x, line.y, line.spread, label=line.label, color=COLOURS[line.colour % len(COLOURS)],
            marker=mark if line.marked else None, linestyle=stroke if line.joined else "none",
            capsize=3 * any(line.spread),
        )  # fmt: skip
    for style, (label, height) in zip(cycle(STROKES), panel.horizontals, strict=False):
        axes.axhline(height, label=label, color=INK, linestyle=style, linewidth=1)
    if panel.band:
        low, high, label = panel.band
        axes.axvspan(low, high, label=label, color=INK, alpha=0.06)
    if panel.ticks:
        axes.set_xticks(range(len(panel.ticks)), panel.ticks, rotation=30, ha="right")
    axes.set(xlabel=panel.x_label, ylabel=panel.y_label)
    if panel.logarithmic:
        _scale_logarithmically(axes.set_yscale, axes.yaxis)
    if panel.logarithmic_x:
        _scale_logarithmically(axes.set_xscale, axes.xaxis)
    axes.grid(True, which="both", axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)  # not over the lines


def _scale_logarithmically(set_scale: Any, axis: Any) -> None:
    """With plain numbers at 1, 2 and 5 of every power of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
