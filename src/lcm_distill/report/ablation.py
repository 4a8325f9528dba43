"""The gain of each step of an ablation: headline ratios, tables and a chart.

Rows are those of `ablation.parquet`: a step of the ablation, a seed of training, and one figure of `metrics.parquet`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

from lcm_distill.core.words import counted
from lcm_distill.report.charts import Line, Panel, student_colour
from lcm_distill.report.figure_columns import LATENTS, FigureColumn, FigureStyles, figure_columns, of_images
from lcm_distill.report.tables import markdown_table, sampling_title, stand_in_notice

Rows = Sequence[Mapping[str, Any]]

FRECHET, CAPTIONS, OF_RESPONSE = "frechet_distance", "caption_accuracy", ("guidance_slope", "seed_diversity")
"""Metrics of the headline."""
FIRST, LAST = "original", "default"
"""Names of the steps that headline figures compare."""
TITLE = "From the original recipe to ours"


def headline(rows: Rows) -> dict[str, float]:
    """Figures that sum up an ablation, of means over seeds; a figure whose rows are missing is left out.

    Ratios are of Fréchet distances. `caption_gap_points` is the teacher's caption accuracy less the default student's
    in four steps, in percentage points; `caption_rise` is how much that student's accuracy rises from the lowest to the
    highest guidance scale, over its teacher's rise; `guidance_slope` is that student's response to the scale over its
    teacher's, and `seed_diversity` the distance of its samples between seeds over that of its teacher's. The teacher is
    the first one of the rows.
    """
    all_rows, rows = rows, _at_first_scale(rows)
    teacher, teacher_accuracy = (_values(rows, metric, model="teacher")[:1] for metric in (FRECHET, CAPTIONS))
    first, one, two, four = (
        _values(rows, FRECHET, step=step, steps=steps) for step, steps in ((FIRST, 1), (LAST, 1), (LAST, 2), (LAST, 4))
    )
    accuracy = _values(rows, CAPTIONS, step=LAST, steps=4)
    ratios = {
        "original_over_ours_1step": (first, one),
        "ours_over_teacher_4step": (four, teacher),
        "ours_over_teacher_2step": (two, teacher),
        "ours_over_teacher_1step": (one, teacher),
    }
    figures = {name: mean(over) / mean(under) for name, (over, under) in ratios.items() if over and under}
    if teacher_accuracy and accuracy:
        figures["caption_gap_points"] = 100 * (mean(teacher_accuracy) - mean(accuracy))
    rises = [_rise(all_rows, model="student", step=LAST, steps=4), _rise(all_rows, **_first_teacher(rows))]
    if rises[0] is not None and rises[1]:
        figures["caption_rise"] = rises[0] / rises[1]
    for name in OF_RESPONSE:
        if values := _values(rows, name, step=LAST, steps=4):
            figures[name] = mean(values)
    return figures


def _at_first_scale(rows: Rows) -> Rows:
    """Rows without images at other guidance scales than the first, which headlines, tables and charts are at."""
    scales = [row["guidance"] for row in of_images(rows) if row["guidance"] is not None]
    return [row for row in rows if row["protocol"] == LATENTS or row["guidance"] in (None, *scales[:1])]


def _first_teacher(rows: Rows) -> dict[str, Any]:
    """What tells rows of the first teacher from others."""
    return next(
        ({name: row[name] for name in ("model", "sampler", "steps")} for row in rows if row["model"] == "teacher"),
        {"model": "teacher"},
    )


def _rise(rows: Rows, **wanted: Any) -> float | None:
    """By how much caption accuracy rises from the lowest to the highest guidance scale; None where there is one."""
    found = {row["guidance"] for row in rows if all(row[name] == value for name, value in wanted.items())}
    scales = sorted(scale for scale in found if _values(rows, CAPTIONS, guidance=scale, **wanted))
    if len(scales) < 2:
        return None
    low, high = (mean(_values(rows, CAPTIONS, guidance=scale, **wanted)) for scale in (scales[0], scales[-1]))
    return high - low


def headline_text(rows: Rows) -> str:
    """`headline` in one line, `name=value` with four digits."""
    return " ".join(f"{name}={value:.4g}" for name, value in headline(rows).items())


def ablation_text(rows: Rows, sentences: Mapping[str, str], stand_ins: Sequence[str], styles: FigureStyles) -> str:
    """Markdown: for each figure a table with a row a step, then teachers and real images, and what each step changes.

    Args:
        sentences: what each step changes, by name, in order.
        stand_ins: parts of the run that are stand-ins.
    """
    all_rows, rows = rows, _at_first_scale(rows)
    columns = figure_columns(rows, styles)
    return "\n\n".join([
        f"# {TITLE}",
        *stand_in_notice(stand_ins),
        _introduction(rows),
        *(part for column in columns for part in _section(rows, column, list(sentences))),
        *_baselines(rows, columns),
        "## What each step changes",
        "\n".join(f"- `{step}`: {sentence}" for step, sentence in sentences.items()),
        *([f"`{headline_text(all_rows)}`"] if headline(all_rows) else []),
    ]) + "\n"  # fmt: skip


def _introduction(rows: Rows) -> str:
    seeds, images = len({row["seed"] for row in rows if row["seed"] is not None}), max(row["images"] for row in rows)
    guidance = max(row["guidance"] for row in of_images(rows) if row["model"] != "real")
    references = list(dict.fromkeys(row["reference"] for row in rows if row["reference"]))
    if any(row["model"] == "real" for row in rows):
        compared = " Distances are to real images of the same captions; lower is better."
    else:
        compared = f" Distances are to {', '.join(references)}; lower is better." if references else ""
    return (
        f"{counted(images, 'image')} to a figure, guidance {guidance:g}, {counted(seeds, 'seed')} of training: "
        f"mean ± standard deviation over seeds. Captions and initial noise are the same for all.{compared}"
    )


def _section(rows: Rows, column: FigureColumn, steps: Sequence[str]) -> list[str]:
    """Heading and table of a figure: one row a step of the ablation, one column a number of sampling steps."""
    shown, counts = _shown(rows, column), sampling_steps(rows)
    table = [
        [f"`{step}`", *(_cell(_values(shown, column.metric, step=step, steps=count), column) for count in counts)]
        for step in steps
    ]
    headings = ["", *(f"{count} step{'s' if count > 1 else ''}" for count in counts)]
    return [f"## {column.title}", markdown_table(headings, table)]


def ablation_panels(rows: Rows, chain: Sequence[str], branches: Sequence[str], styles: FigureStyles) -> list[Panel]:
    """A panel a distance, by step, with a line a number of sampling steps; other figures where there is no distance."""
    rows = _at_first_scale(rows)
    columns = figure_columns(rows, styles)
    distances = [column for column in columns if column.style.logarithmic] or columns
    panels = [_panel(rows, column, chain, branches) for column in distances]
    return [replace(panel, name="") for panel in panels] if len(panels) == 1 else panels


def _panel(rows: Rows, column: FigureColumn, chain: Sequence[str], branches: Sequence[str]) -> Panel:
    shown, names = _shown(rows, column), [*chain, *branches]
    lines = [
        Line(
            *_points(shown, names, steps, count),
            student_colour(number),
            label if part == "chain" else None,
            part == "chain",
        )
        for number, count in enumerate(sampling_steps(rows))
        for label in [f"{count} step{'s' if count > 1 else ''}"]
        for part, steps in (("chain", chain), ("branches", branches))
    ]
    teachers = [
        (sampling_title("teacher", row["sampler"], row["steps"]), row["value"])
        for row in shown
        if row["model"] == "teacher"
    ]
    return Panel(
        "step of the ablation", column.heading, lines, column.style.logarithmic, teachers, names,
        title=f"{TITLE}: {column.heading}", name=column.name,
    )  # fmt: skip


def sampling_steps(rows: Rows) -> list[int]:
    """Numbers of sampling steps of the students, rising."""
    return sorted({row["steps"] for row in rows if row["model"] == "student"})


def _shown(rows: Rows, column: FigureColumn) -> list[Mapping[str, Any]]:
    return [row for row in rows if column.shows(row)]


def _values(rows: Rows, metric: str, **wanted: Any) -> list[float]:
    """One value a seed."""
    chosen = {"metric": metric, **wanted}
    return [row["value"] for row in rows if all(row[name] == value for name, value in chosen.items())]


def _spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _cell(values: Sequence[float], column: FigureColumn) -> str:
    if not values:
        return ""
    return column.cell(mean(values)) + (f" ± {column.cell(_spread(values))}" if len(values) > 1 else "")


def _points(
    rows: Rows, names: Sequence[str], steps: Sequence[str], count: int
) -> tuple[list[float], list[float], list[float]]:
    """x, y and spread of the given steps of the ablation; x is a step's place among `names`.

    Args:
        rows: those of one figure. count: sampling steps.
    """
    found: dict[str, list[float]] = {}
    for step in steps:
        if values := [row["value"] for row in rows if (row["step"], row["steps"]) == (step, count)]:
            found[step] = values
    return (
        [float(names.index(step)) for step in found],
        [mean(values) for values in found.values()],
        [_spread(values) for values in found.values()],
    )


def _baselines(rows: Rows, columns: Sequence[FigureColumn]) -> list[str]:
    """Heading and table of teachers and real images; nothing where neither was measured."""
    teachers = {(row["sampler"], row["steps"]): row["network_evaluations"] for row in rows if row["model"] == "teacher"}
    table = [
        [sampling_title("teacher", solver, steps), str(evaluations),
         *(_cell(_values(_shown(rows, column), column.metric, model="teacher", sampler=solver, steps=steps), column)
           for column in columns)]
        for (solver, steps), evaluations in teachers.items()
    ]  # fmt: skip
    if any(row["model"] == "real" for row in rows):
        cells = [_cell(_values(_shown(rows, column), column.metric, model="real"), column) for column in columns]
        table.append(["real images of other captions", "", *cells])
    if not table:
        return []
    headings = ["", "network evaluations", *(column.heading for column in columns)]
    return ["## Teachers and real images", markdown_table(headings, table)]
