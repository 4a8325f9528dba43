"""Figures against the guidance scale: a table and a chart. Rows are those of `guidance.parquet`."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lcm_distill.core.words import counted
from lcm_distill.report.charts import Line, Panel, draw_chart
from lcm_distill.report.figure_columns import LATENTS, FigureColumn, FigureStyles, figure_columns, of_images
from lcm_distill.report.tables import markdown_table, sampling_title, stand_in_notice

Rows = Sequence[Mapping[str, Any]]
SamplingKey = tuple[str, str, int]
"""Model, sampler and number of steps."""

MODELS = 3
"""Teacher, untrained student and student, which have the first colours."""
TITLE = "Figures against the guidance scale"


def guidance_text(rows: Rows, trained: tuple[float, float], stand_ins: Sequence[str], styles: FigureStyles) -> str:
    """Markdown: a table a figure, one row a sampling and one column a guidance scale.

    Args:
        trained: guidance scales the student was trained on, lowest and highest.
        stand_ins: parts of the run that are stand-ins.
    """
    responses = [row for row in rows if row["protocol"] == LATENTS]
    rows = of_images(rows)
    scales = sorted({row["guidance"] for row in rows})
    parts = [
        f"# {TITLE}",
        *stand_in_notice(stand_ins),
        f"{counted(rows[0]['images'], 'image')} to a figure. The student was trained on scales from {trained[0]:g} to "
        f"{trained[1]:g}.",
    ]
    for column in figure_columns(rows, styles):
        table: list[list[str]] = []
        for sampling in _samplings(rows):
            if values := _values_by_scale(rows, sampling, column):
                table.append([sampling_title(*sampling), *(column.cell(values.get(scale)) for scale in scales)])
        parts += [f"## {column.title}", markdown_table(["", *(f"{scale:g}" for scale in scales)], table)]
    parts += _response(responses, styles) if responses else []
    return "\n\n".join(parts) + "\n"


def _response(rows: Rows, styles: FigureStyles) -> list[str]:
    """Heading and table of the student's response to the scale, one row a sampling and one column a figure."""
    columns = figure_columns(rows, styles)
    table: list[list[str]] = []
    for sampling in _samplings(rows):
        values = {column.heading: _values_by_scale(rows, sampling, column) for column in columns}
        cells = [column.cell(next(iter(values[column.heading].values()), None)) for column in columns]
        table.append([sampling_title(*sampling), *cells])
    return [
        "## Response of the student",
        f"What final latents at {rows[0]['guidance']:g} have beyond those at the lowest scale, beside the teacher's "
        f"from the same {rows[0]['images']:,} noisy samples: projected on the teacher's (slope), its size, and their "
        "cosine; 1 is the teacher's. Seed diversity is the mean distance of two samples of one caption over the "
        "teacher's, at the highest scale.",
        markdown_table(["", *(column.heading for column in columns)], table),
    ]


def guidance_chart(
    rows: Rows, trained: tuple[float, float], stand_ins: Sequence[str], styles: FigureStyles
) -> Callable[[Path], None]:
    """`guidance_panels` side by side; the result writes a PNG file to the path it is given."""
    panels = guidance_panels(rows, trained, styles)
    return partial(draw_chart, panels, "\n".join([TITLE, *stand_in_notice(stand_ins, "{}")]))


def guidance_panels(rows: Rows, trained: tuple[float, float], styles: FigureStyles) -> list[Panel]:
    """One panel a figure, one line a sampling: a colour is a model, a mark a sampler and a stroke a number of steps.

    Samplings at one scale alone, of which tables have figures, are left out where others have several.
    """
    responses, rows = rows, of_images(rows)
    scales = Counter(sampling for sampling, _ in {(_sampling(row), row["guidance"]) for row in rows})
    rows = [row for row in rows if scales[_sampling(row)] > 1] or rows
    looks = [list(dict.fromkeys(of_one)) for of_one in zip(*_samplings(rows), strict=True)]
    panels: list[Panel] = []
    for column in figure_columns(rows, styles):
        curves = [(sampling, _values_by_scale(rows, sampling, column)) for sampling in _samplings(rows)]
        lines = [
            Line(
                list(curve),
                list(curve.values()),
                [0.0] * len(curve),
                label=sampling_title(*sampling),
                colour=colour,
                mark=mark,
                stroke=stroke,
            )
            for sampling, curve in curves
            if curve
            for colour, mark, stroke in [[known.index(value) for known, value in zip(looks, sampling, strict=True)]]
        ]
        band = (*trained, "student's training")
        panels.append(Panel("guidance scale", column.heading, lines, column.style.logarithmic, band=band))
    return panels + _response_panels(responses)


def _response_panels(rows: Rows) -> list[Panel]:
    """A panel of slope, size and cosine against the student's number of steps, if they were measured.

    Its colours are none of those that the other panels have for models.
    """
    lines: list[Line] = []
    for colour, name in enumerate(("slope", "size", "cosine"), start=MODELS):
        curve = {row["steps"]: row["value"] for row in rows if row["metric"] == f"guidance_{name}"}
        steps = sorted(curve)
        lines.append(Line(steps, [curve[count] for count in steps], [0.0] * len(steps), colour, name))
    measured = any(line.x for line in lines)
    return (
        [Panel("steps of the student", "response to guidance\n(teacher: 1)", lines, logarithmic_x=True)]
        if measured
        else []
    )


def _samplings(rows: Rows) -> list[SamplingKey]:
    return list(dict.fromkeys(map(_sampling, rows)))


def _sampling(row: Mapping[str, Any]) -> SamplingKey:
    return row["model"], row["sampler"], row["steps"]


def _values_by_scale(rows: Rows, sampling: SamplingKey, column: FigureColumn) -> dict[float, float]:
    """Value by guidance scale, rising."""
    return dict(
        sorted((row["guidance"], row["value"]) for row in rows if _sampling(row) == sampling and column.shows(row))
    )
