"""Figures against the guidance scale: a table and a chart. Rows are those of `guidance.parquet`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lcm_distill.report.charts import Line, Panel, draw_chart
from lcm_distill.report.tables import markdown_table, stand_in_notice, way_title

METRICS = (("frechet_distance", "Fréchet distance", "{:.2f}"), ("caption_accuracy", "caption accuracy", "{:.1%}"))

Rows = Sequence[Mapping[str, Any]]


def guidance_text(rows: Rows, trained: tuple[float, float], stand_ins: Sequence[str]) -> str:
    """Markdown: a table a metric, one row a way of drawing and one column a guidance scale.

    Args:
        trained: guidance scales the student was trained on, lowest and highest.
    """
    scales = sorted({row["guidance"] for row in rows})
    parts = [
        "# Figures against the guidance scale",
        *stand_in_notice(stand_ins),
        f"{rows[0]['images']:,} pictures to a figure. The student was trained on scales from {trained[0]:g} to "
        f"{trained[1]:g}.",
    ]
    for metric, name, form in METRICS:
        table = [
            [way_title(*way), *(form.format(value) for _, value in _points(rows, way, metric))] for way in _ways(rows)
        ]
        parts += [f"## {name.capitalize()}", markdown_table(["", *(f"{scale:g}" for scale in scales)], table)]
    return "\n\n".join(parts) + "\n"


def guidance_chart(rows: Rows, trained: tuple[float, float], stand_ins: Sequence[str]) -> Callable[[Path], None]:
    """One panel a metric, one line a way of drawing; writes a PNG file to the path it is given."""
    panels = []
    for metric, name, _ in METRICS:
        points = [(way, _points(rows, way, metric)) for way in _ways(rows)]
        lines = [
            Line([x for x, _ in line], [y for _, y in line], [0.0] * len(line), colour, way_title(*way))
            for colour, (way, line) in enumerate(points)
        ]
        band = (*trained, "student's training")
        panels.append(Panel("guidance scale", name, lines, metric == "frechet_distance", band=band))
    return partial(
        draw_chart, panels, "\n".join(["Figures against the guidance scale", *stand_in_notice(stand_ins, "{}")])
    )


def _ways(rows: Rows) -> list[tuple[str, str, int]]:
    return list(dict.fromkeys((row["model"], row["sampler"], row["steps"]) for row in rows))


def _points(rows: Rows, way: tuple[str, str, int], metric: str) -> list[tuple[float, float]]:
    """Guidance scale and value, by rising scale."""
    return sorted(
        (row["guidance"], row["value"])
        for row in rows
        if (row["model"], row["sampler"], row["steps"]) == way and row["metric"] == metric
    )
