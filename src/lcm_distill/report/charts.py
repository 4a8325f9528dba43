# The types of matplotlib are partial.
# pyright: reportUnknownMemberType=false
"""Line charts as PNG files. Matplotlib is imported when a chart is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLOURS = ("#1b6ca8", "#d1495b", "#edae49", "#2e8b57", "#6a4c93", "#5c5f66")
INK = "#28282c"


@dataclass(frozen=True)
class Line:
    """One series of points.

    Attributes:
        x, y: coordinates. spread: half the length of each point's error bar.
        colour: index into `COLOURS`, which repeat.
        label: in the legend; None for points that share another line's entry.
        joined: whether a line connects the points.
    """

    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float]
    colour: int
    label: str | None = None
    joined: bool = True


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
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8 * len(panels), 5.5), layout="constrained")
    for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        _draw_panel(panel, axes)
    figure.suptitle(title, color=INK)
    figure.savefig(path, format="png", dpi=130)


def _draw_panel(panel: Panel, axes: Any) -> None:
    for line in panel.lines:
        axes.errorbar(
            line.x, line.y, line.spread, label=line.label, color=COLOURS[line.colour % len(COLOURS)],
            marker="o", linestyle="-" if line.joined else "none", capsize=3,
        )  # fmt: skip
    for style, (label, height) in zip(("--", ":", "-."), panel.horizontals, strict=False):
        axes.axhline(height, label=label, color=INK, linestyle=style, linewidth=1)
    if panel.band:
        low, high, label = panel.band
        axes.axvspan(low, high, label=label, color=INK, alpha=0.06)
    if panel.ticks:
        axes.set_xticks(range(len(panel.ticks)), panel.ticks, rotation=30, ha="right")
    axes.set(xlabel=panel.x_label, ylabel=panel.y_label, yscale="log" if panel.logarithmic else "linear")
    if panel.logarithmic_x:
        axes.set_xscale("log")
    axes.grid(True, which="both", axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
