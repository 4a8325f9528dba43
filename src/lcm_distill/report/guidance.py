"""Figures against the guidance scale: a table and a chart. Rows are those of `guidance.parquet`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lcm_distill.report.charts import Line, Panel, draw_chart
from lcm_distill.report.figures import FigureColumn, FigureStyles, figure_columns
from lcm_distill.report.tables import markdown_table, sampling_title, stand_in_notice

Rows = Sequence[Mapping[str, Any]]
SamplingKey = tuple[str, str, int]
"""Model, sampler and number of steps."""

TITLE = "Figures against the guidance scale"


def guidance_text(rows: Rows, trained: tuple[float, float], stand_ins: Sequence[str], styles: FigureStyles) -> str:
    """Markdown: a table a figure, one row a sampling and one column a guidance scale.

    Args:
        trained: guidance scales the student was trained on, lowest and highest.
        stand_ins: parts of the run that are stand-ins.
    """
    scales = sorted({row["guidance"] for row in rows})
    parts = [
        f"# {TITLE}",
        *stand_in_notice(stand_ins),
        f"{rows[0]['images']:,} images to a figure. The student was trained on scales from {trained[0]:g} to "
        f"{trained[1]:g}.",
    ]
    for column in figure_columns(rows, styles):
        table: list[list[str]] = []
        for sampling in _samplings(rows):
            values = _values_by_scale(rows, sampling, column)
            table.append([sampling_title(*sampling), *(column.cell(values.get(scale)) for scale in scales)])
        parts += [f"## {column.title}", markdown_table(["", *(f"{scale:g}" for scale in scales)], table)]
    return "\n\n".join(parts) + "\n"


def guidance_chart(
    rows: Rows, trained: tuple[float, float], stand_ins: Sequence[str], styles: FigureStyles
) -> Callable[[Path], None]:
    """One panel a figure, one line a sampling; the result writes a PNG file to the path it is given."""
    panels: list[Panel] = []
    for column in figure_columns(rows, styles):
        curves = [(sampling, _values_by_scale(rows, sampling, column)) for sampling in _samplings(rows)]
        lines = [
            Line(list(curve), list(curve.values()), [0.0] * len(curve), colour, sampling_title(*sampling))
            for colour, (sampling, curve) in enumerate(curves)
        ]
        band = (*trained, "student's training")
        panels.append(Panel("guidance scale", column.heading, lines, column.style.logarithmic, band=band))
    return partial(draw_chart, panels, "\n".join([TITLE, *stand_in_notice(stand_ins, "{}")]))


def _samplings(rows: Rows) -> list[SamplingKey]:
    return list(dict.fromkeys((row["model"], row["sampler"], row["steps"]) for row in rows))


def _values_by_scale(rows: Rows, sampling: SamplingKey, column: FigureColumn) -> dict[float, float]:
    """Value by guidance scale, rising."""
    return dict(
        sorted(
            (row["guidance"], row["value"])
            for row in rows
            if (row["model"], row["sampler"], row["steps"]) == sampling and column.shows(row)
        )
    )
