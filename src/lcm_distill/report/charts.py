# The types of matplotlib are partial.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""Line charts as PNG files or within a page. Matplotlib is imported when a chart is drawn."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from math import isclose, log
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
"""Least distance of two tick labels, as a share of a logarithmic x axis."""
ALIKE = 0.003
"""Relative difference of two values up to which one mark covers the other."""
PALE = 0.45
"""Opacity of a line that others cover."""
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
    from matplotlib import rcParams
    from matplotlib.ticker import MaxNLocator

    from lcm_distill.report.plain_ticks import PlainTicks

    axes = figure.subplots()
    for line, covered in zip(panel.lines, _covered(panel.lines), strict=True):
        _draw_line(line, covered, axes)
    for style, (label, height) in zip(cycle(BROKEN), panel.horizontals, strict=False):
        axes.axhline(height, label=label, color=INK, linestyle=style, linewidth=1)
    if panel.band:
        low, high, label = panel.band
        axes.axvspan(low, high, label=label, color=INK, alpha=0.06)
    if panel.ticks:
        axes.set_xticks(range(len(panel.ticks)), panel.ticks, rotation=30, ha="right")
    axes.set(xlabel=panel.x_label, ylabel=_broken(panel.y_label, LABEL_WIDTH))
    if panel.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(PlainTicks(axes, rcParams["font.size"]))
        _label_plainly(axes.yaxis)
    if panel.whole_x:
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    if panel.logarithmic_x:
        axes.set_xscale("log")
        _label_plainly(axes.xaxis)
        if ticks := _ticks([x for line in panel.lines for x in line.x]):
            axes.set_xticks(ticks)
            axes.set_xticks([], minor=True)
    axes.grid(True, axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if labels := axes.get_legend_handles_labels()[1]:
        columns = 2 if max(map(len, labels)) <= SHORT else 1
        figure.legend(frameon=False, loc="outside lower center", ncols=columns, handlelength=3, fontsize=SINGLE)


def _draw_line(line: Line, covered: int, axes: Any) -> None:
    """Draw a line, wider and paler the more others cover it, so that it is seen beneath them."""
    colour, again = line.colour % len(COLOURS), line.colour // len(COLOURS)
    stroke = STROKES[(line.stroke + again) % len(STROKES)] if line.joined else "none"
    mark = MARKS[(line.mark + again) % len(MARKS)] if line.marked else None
    width, size, alpha = (1.5 + 3 * covered, 6 + 4 * covered, PALE) if covered else (1.5, 6, 1)
    axes.plot(
        line.x, line.y, label=line.label, color=COLOURS[colour], marker=mark, linestyle=stroke,
        linewidth=width, markersize=size, markeredgewidth=0 if covered else 1, alpha=alpha,
    )  # fmt: skip
    if any(line.spread):
        axes.errorbar(line.x, line.y, line.spread, color=COLOURS[colour], linestyle="none", capsize=3)


def _covered(lines: Sequence[Line]) -> list[int]:
    """How many of the later lines each line coincides with, at two points beside each other or at its only one."""
    return [sum(_coincide(line, later) for later in lines[number + 1 :]) for number, line in enumerate(lines)]


def _coincide(one: Line, other: Line) -> bool:
    found = dict(zip(other.x, other.y, strict=True))
    same = [x in found and isclose(y, found[x], rel_tol=ALIKE) for x, y in zip(one.x, one.y, strict=True)]
    return one.marked and other.marked and (any(map(all, pairwise(same))) or same == [True])


def _label_plainly(axis: Any) -> None:
    """Numbers without powers at the major ticks, and nothing at the minor ones."""
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


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
