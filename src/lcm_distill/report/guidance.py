"""Figures against the guidance scale: tables and charts. Rows are those of `guidance.parquet`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lcm_distill.core.words import counted
from lcm_distill.report.charts import MODEL_COLOURS, Line, Panel, student_colour
from lcm_distill.report.distinctions import distinction
from lcm_distill.report.figure_columns import LATENTS, FigureColumn, FigureStyles, figure_columns, of_images
from lcm_distill.report.tables import markdown_table, sampling_title, stand_in_notice

Row = Mapping[str, Any]
Rows = Sequence[Row]
SamplingKey = tuple[str, str, int, tuple[float, ...], str | None]
"""Model, sampler, number of steps, sigmas and dtype."""

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
        for sampling, title in _samplings(rows).items():
            if values := _values_by_scale(rows, sampling, column):
                table.append([title, *(column.cell(values.get(scale)) for scale in scales)])
        parts += [f"## {column.title}", markdown_table(["", *(f"{scale:g}" for scale in scales)], table)]
    parts += _response(responses, styles) if responses else []
    return "\n\n".join(parts) + "\n"


def _response(rows: Rows, styles: FigureStyles) -> list[str]:
    """Heading and table of the student's response to the scale, one row a sampling and one column a figure."""
    columns = figure_columns(rows, styles)
    table: list[list[str]] = []
    for sampling, title in _samplings(rows).items():
        values = {column.heading: _values_by_scale(rows, sampling, column) for column in columns}
        cells = [column.cell(next(iter(values[column.heading].values()), None)) for column in columns]
        table.append([title, *cells])
    return [
        "## Response of the student",
        f"What final latents at {rows[0]['guidance']:g} have beyond those at the lowest scale, beside the teacher's "
        f"from the same {rows[0]['images']:,} noisy samples: projected on the teacher's (slope), its size, and their "
        "cosine; 1 is the teacher's. Seed diversity is the mean distance of two samples of one caption over the "
        "teacher's, at the highest scale.",
        markdown_table(["", *(column.heading for column in columns)], table),
    ]


def guidance_panels(rows: Rows, trained: tuple[float, float], styles: FigureStyles) -> list[Panel]:
    """One panel a figure, one line a sampling: a colour is a model, a mark and a stroke one of its samplings.

    Samplings at one scale alone, of which tables have figures, are left out where others have several.
    """
    responses, rows = rows, of_images(rows)
    scales = Counter(sampling for sampling, _ in {(_sampling(row), row["guidance"]) for row in rows})
    rows = [row for row in rows if scales[_sampling(row)] > 1] or rows
    band = (*trained, "range of the student's training")
    panels: list[Panel] = []
    for column in figure_columns(rows, styles):
        title = f"{column.title} against the guidance scale"
        lines = _lines(rows, column)
        panels.append(
            Panel("guidance scale", column.heading, lines, column.style.logarithmic, band=band, title=title,
                  name=column.name)
        )  # fmt: skip
    return panels + _response_panels(responses)


def _lines(rows: Rows, column: FigureColumn) -> list[Line]:
    """A line a sampling: a model's first one has the first mark and stroke in every panel, its second the second."""
    lines, numbers = list[Line](), Counter[str]()
    for sampling, title in _samplings(rows).items():
        model, number = sampling[0], numbers[sampling[0]]
        numbers[model] += 1
        if curve := _values_by_scale(rows, sampling, column):
            values = list(curve.values())
            lines.append(
                Line(list(curve), values, [0.0] * len(values), MODEL_COLOURS[model], title, mark=number, stroke=number)
            )
    return lines


def _response_panels(rows: Rows) -> list[Panel]:
    """A panel of slope, size and cosine against the student's number of steps, if they were measured.

    Its colours are none of those that the other panels have for models.
    """
    lines: list[Line] = []
    for number, name in enumerate(("slope", "size", "cosine")):
        curve = {row["steps"]: row["value"] for row in rows if row["metric"] == f"guidance_{name}"}
        steps = sorted(curve)
        values, colour = [curve[count] for count in steps], student_colour(1 + number)
        lines.append(Line(steps, values, [0.0] * len(steps), colour, name, mark=number))
    if not any(line.x for line in lines):
        return []
    title = "Response of the student to the guidance scale"
    label = "response to guidance\n(teacher: 1)"
    return [Panel("steps of the student", label, lines, logarithmic_x=True, title=title, name="response")]


def _samplings(rows: Rows) -> dict[SamplingKey, str]:
    """Samplings in words, with sigmas or dtype where another one differs in these alone, in order of appearance."""
    first = {_sampling(row): row for row in reversed(rows)}
    titles = dict[SamplingKey, str]()
    for key in dict.fromkeys(map(_sampling, rows)):
        said = distinction(first[key], [row for other, row in first.items() if other[:3] == key[:3]])
        titles[key] = ", ".join(filter(None, [sampling_title(*key[:3]), said]))
    return titles


def _sampling(row: Row) -> SamplingKey:
    return row["model"], row["sampler"], row["steps"], tuple(row.get("sigmas") or ()), row.get("dtype")


def _values_by_scale(rows: Rows, sampling: SamplingKey, column: FigureColumn) -> dict[float, float]:
    """Value by guidance scale, rising."""
    return dict(
        sorted((row["guidance"], row["value"]) for row in rows if _sampling(row) == sampling and column.shows(row))
    )
