"""Figures against the guidance scale: a table and a chart. Rows are those of `guidance.parquet`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lcm_distill.report.charts import Line, Panel, draw_chart
from lcm_distill.report.tables import Figure, figures_of, markdown_table, sampling_title, stand_in_notice

Rows = Sequence[Mapping[str, Any]]


def guidance_text(rows: Rows, trained: tuple[float, float], stand_ins: Sequence[str]) -> str:
    """Markdown: a table a figure, one row a way of drawing and one column a guidance scale.

    Args:
        trained: guidance scales the student was trained on, lowest and highest.
    """
    scales = sorted({row["guidance"] for row in rows})
    parts = [
        "# Figures against the guidance scale",
        *stand_in_notice(stand_ins),
        f"{rows[0]['images']:,} images to a figure. The student was trained on scales from {trained[0]:g} to "
        f"{trained[1]:g}.",
    ]
    for figure in figures_of(rows):
        table = [
            [sampling_title(*sampling), *(figure.cell(_points(rows, sampling, figure).get(scale)) for scale in scales)]
            for sampling in _ways(rows)
        ]
        parts += [
            f"## {figure.heading[0].upper()}{figure.heading[1:]}",
            markdown_table(["", *(f"{scale:g}" for scale in scales)], table),
        ]
    return "\n\n".join(parts) + "\n"


def guidance_chart(rows: Rows, trained: tuple[float, float], stand_ins: Sequence[str]) -> Callable[[Path], None]:
    """One panel a figure, one line a way of drawing; writes a PNG file to the path it is given."""
    panels = []
    for figure in figures_of(rows):
        points = [(sampling, _points(rows, sampling, figure)) for sampling in _ways(rows)]
        lines = [
            Line(list(line), list(line.values()), [0.0] * len(line), colour, sampling_title(*sampling))
            for colour, (sampling, line) in enumerate(points)
        ]
        band = (*trained, "student's training")
        panels.append(Panel("guidance scale", figure.heading, lines, figure.logarithmic, band=band))
    return partial(
        draw_chart, panels, "\n".join(["Figures against the guidance scale", *stand_in_notice(stand_ins, "{}")])
    )


def _ways(rows: Rows) -> list[tuple[str, str, int]]:
    return list(dict.fromkeys((row["model"], row["sampler"], row["steps"]) for row in rows))


def _points(rows: Rows, sampling: tuple[str, str, int], figure: Figure) -> dict[float, float]:
    """Value by guidance scale, rising."""
    return dict(
        sorted(
            (row["guidance"], row["value"])
            for row in rows
            if (row["model"], row["sampler"], row["steps"]) == sampling and figure.shows(row)
        )
    )
