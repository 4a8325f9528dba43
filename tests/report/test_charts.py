"""Charts can be read: labels of ticks have room, and no line is hidden by another one."""

from itertools import pairwise
from typing import Any

import pytest
from matplotlib import rc_context
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lcm_distill.report import charts
from lcm_distill.report.charts import COLOURS, Line, Panel
from lcm_distill.report.plain_ticks import plain_ticks


def laid_out(panel: Panel) -> Figure:
    """A panel's chart, whose parts have their places."""
    with rc_context({"font.size": charts.FONT}):
        figure = charts._figure(panel)
        figure.draw_without_rendering()
    return figure


def drawn(panel: Panel) -> Any:
    """The axes of a panel, laid out."""
    return laid_out(panel).axes[0]


def panel_of(*values: float, **other: Any) -> Panel:
    return Panel("x", "y", [Line(range(len(values)), values, [0] * len(values), 0)], logarithmic=True, **other)


@pytest.mark.parametrize(
    ("ends", "least", "ticks"),
    [
        ((3.6, 5.2), 0.09, [3.6, 3.8, 4, 4.2, 4.4, 4.6, 4.8, 5, 5.2]),
        ((3.6, 5.2), 0.12, [4, 4.5, 5]),
        ((1.5, 2.45), 0.09, [1.6, 1.8, 2, 2.2, 2.4]),
        ((2, 9), 0.07, [2, 3, 4, 5, 6, 7, 8, 9]),
        ((2, 9), 0.09, [2, 3, 4, 6, 8]),
        ((2, 9), 0.2, [2, 3, 5]),
        ((2.8, 33), 0.09, [3, 4, 6, 8, 10, 20, 30]),
        ((2.8, 33), 0.12, [3, 5, 10, 20, 30]),
        ((2, 90), 0.09, [2, 3, 5, 10, 20, 30, 50]),
        ((2, 90), 0.15, [2, 5, 10, 20, 50]),
        ((1, 1e9), 0.09, [1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9]),
        ((5.1, 9.9), 0.4, [6, 8]),
    ],
)
def test_ticks_are_plain_numbers_as_many_as_have_room(ends, least, ticks):
    assert plain_ticks(ends, ends, least) == pytest.approx(ticks)


@pytest.mark.parametrize("values", [(3.11, 22.8), (2.2, 9.3), (3.15, 4.4), (7, 12), (0.03, 0.9), (1, 3000), (4, 4.01)])
@pytest.mark.parametrize("others", [0, 6])
def test_labels_of_a_logarithmic_axis_never_meet(values, others):
    heights = [(f"a horizontal line with a name that is long, number {number}", values[0]) for number in range(others)]
    axes = drawn(panel_of(*values, horizontals=heights))
    labels = {float(label.get_text()): label.get_window_extent() for label in axes.get_yticklabels()}
    assert sum(values[0] <= number <= values[1] for number in labels) >= 3
    assert all(labels[low].y1 < labels[high].y0 for low, high in pairwise(sorted(labels)))


def widths(*lines: Line) -> dict[str, float]:
    """Widths of the lines by their colour."""
    return {to_hex(line.get_color()): line.get_linewidth() for line in drawn(Panel("x", "y", lines)).get_lines()}


def test_a_line_beneath_another_one_is_wider():
    no = [0.0] * 3
    first, second, third = COLOURS[:3]
    under, over = Line([1, 2, 3], [8, 7, 9], no, 0), Line([1, 2, 3], [8, 7.01, 3], no, 1)
    assert widths(under, over) == {first: 4.5, second: 1.5}
    assert widths(under, over, Line([1, 2, 3], [8, 7, 2], no, 2)) == {first: 7.5, second: 4.5, third: 1.5}
    crossing = Line([1, 2, 3], [1, 7, 1], no, 1)
    assert widths(under, crossing) == {first: 1.5, second: 1.5}
    assert widths(Line([2], [7], [0], 0), Line([2, 3], [7, 9], [0, 0], 1)) == {first: 4.5, second: 1.5}


def test_title_labels_and_legend_have_room_whatever_their_length():
    lines = [
        Line([1, 2], [1, 2 + number], [0, 0], number, f"line {number} " + "of a run " * number) for number in range(12)
    ]
    figure = laid_out(Panel("x", "distance to " * 6, lines, title="a title that is long, " * 9))
    (legend,), axes, title = figure.legends, figure.axes[0], figure.texts[0]
    boxes = [legend.get_window_extent(), axes.get_tightbbox(), title.get_window_extent()]
    assert all(low.y1 <= high.y0 for low, high in pairwise(boxes)) and axes.yaxis.label.get_window_extent().y0 >= 0
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)
    names = ("a step of an ablation", "another one")
    heights = [drawn(Panel("x", "y", lines[:1], ticks=ticks)).bbox.height for ticks in ((), names)]
    assert [axes.bbox.height, *heights] == pytest.approx([heights[0]] * 3, rel=0.1)
