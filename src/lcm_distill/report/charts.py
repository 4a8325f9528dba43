# The types of matplotlib are partial.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""Line charts, one a PNG file or several within a page. Matplotlib is imported when a chart is drawn."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from math import isclose, log
from pathlib import Path
from textwrap import wrap
from typing import Any

COLOURS = ("#1b6ca8", "#d1495b", "#edae49", "#2e8b57", "#6a4c93", "#5c5f66")
MODEL_COLOURS = {"teacher": 0, "untrained": 5, "student": 1}
"""The colour that a model has in every chart."""
RUN_COLOURS = (1, 3, 4, 2)
"""Colours of students where several are compared: neither the teacher's nor the untrained student's."""
MARKS = ("o", "s", "^", "D", "v")
BROKEN = ("--", ":", "-.", (0, (8, 2, 1, 2, 1, 2)), (0, (10, 4)), (0, (1, 4)))
"""Strokes of horizontal lines, which repeat them."""
STROKES = ("-", *BROKEN)
WIDTH, HEIGHT = 6.4, 3.4
"""Of a chart without title and legend, in inches."""
ROW = 0.215
"""Height of a line of the title and of the legend, which a chart is higher by, in inches."""
APART = 0.06
"""Least distance of two tick labels, as a share of a logarithmic x axis."""
ALIKE = 0.003
"""Relative difference of two values up to which one mark covers the other."""
PALE = 0.45
"""Opacity of a line that others cover."""
LABEL_WIDTH, TITLE_WIDTH, LEGEND_WIDTH = 36, 70, 76
"""Letters of an axis label, of a line of the title and of the legend, which are broken where they are longer."""
FONT = 10
"""Size of the text, in points."""
SLANTED = 5
"""Letters of a slanted tick label that are as high as a line."""
SHORT = 36
"""Letters of labels of which two stand beside each other in a legend."""
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
    """One pair of axes, which is one chart.

    Attributes:
        horizontals: horizontal lines, label and height, in the teacher's colour.
        logarithmic, logarithmic_x: whether the y axis and the x axis are logarithmic.
        ticks: names of x = 0, 1, 2 ...; empty where x is a quantity.
        band: lower and upper end of a shaded range of x, and its label.
        whole_x: whether x counts, so that it has ticks at whole numbers alone.
        title: lines above the axes.
        name: of the chart's file, after that of the result it belongs to; empty where it has no other chart.
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
    title: str = ""
    name: str = ""


def student_colour(number: int) -> int:
    """Colour of one of several students; where these are used up they come again with other marks and strokes."""
    again, place = divmod(number, len(RUN_COLOURS))
    return RUN_COLOURS[place] + again * len(COLOURS)


def draw_chart(panel: Panel, source: str, name: str, path: Path) -> None:
    """A panel as a PNG file at `path`.

    Args:
        source, name: in the file's metadata, the result that the chart belongs to, and what its file is called.
    """
    from matplotlib import rc_context

    with rc_context({**STYLE, "font.size": FONT}):
        said = {"Software": "lcm-distill", "Source": source, "Title": name}
        _figure(panel).savefig(path, format="png", dpi=130, metadata=said)


def panel_svg(panel: Panel, name: str) -> str:
    """A panel as an `svg` element without background, its text and axes in the colour of the text around it.

    Args:
        name: of the chart, distinct in a page: references within the element are made of it.
    """
    from matplotlib import rc_context

    content = io.StringIO()
    with rc_context({**STYLE, "font.size": FONT, "svg.fonttype": "none", "svg.hashsalt": name}):
        _figure(panel).savefig(content, format="svg", transparent=True, metadata={"Date": None})
    svg = content.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def _figure(panel: Panel) -> Any:
    """The panel between its title and its legend, which take nothing of its height; nor do the names of ticks."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    axes = figure.subplots()
    _draw_panel(panel, axes)
    handles, names = axes.get_legend_handles_labels()
    title, labels = _broken(panel.title, TITLE_WIDTH), [_broken(name, LEGEND_WIDTH) for name in names]
    columns = 2 if max(map(len, labels), default=0) <= SHORT else 1
    rows = sum(label.count("\n") + 1 for label in labels) / columns + (title.count("\n") + 1 if title else 0)
    rows += max(map(len, panel.ticks), default=0) / SLANTED
    figure.set_size_inches(WIDTH, HEIGHT + ROW * rows)
    if title:
        figure.suptitle(title, fontsize=FONT + 1)
    if labels:
        figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=columns, handlelength=3)
    return figure


def _draw_panel(panel: Panel, axes: Any) -> None:
    from matplotlib import rcParams
    from matplotlib.ticker import MaxNLocator

    from lcm_distill.report.plain_ticks import PlainTicks

    for line, covered in zip(panel.lines, _covered(panel.lines), strict=True):
        _draw_line(line, covered, axes)
    for style, (label, height) in zip(cycle(BROKEN), panel.horizontals, strict=False):
        axes.axhline(height, label=label, color=COLOURS[MODEL_COLOURS["teacher"]], linestyle=style, linewidth=1.2)
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
