"""Figures across runs: tables and a chart. Rows are those of `metrics.parquet` with the run they belong to."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lcm_distill.report.caption_sets import caption_set_titles
from lcm_distill.report.charts import Line, Panel, draw_chart
from lcm_distill.report.figure_columns import FigureColumn, FigureStyles, figure_columns, of_images
from lcm_distill.report.tables import (
    figures_cells,
    markdown_table,
    model_title,
    solver_title,
    stand_in_notice,
    steps_title,
)

Rows = Sequence[Mapping[str, Any]]

TITLE = "Figures across runs"
LOOKS = ("name", "sampler", "guidance")
"""What the colour, the mark and the stroke of a line say."""
NO_TEACHER = "No teacher was measured on these captions: `lcm evaluate --models teacher` adds one beside the students."


def comparison_text(rows: Rows, stand_ins: Sequence[str], styles: FigureStyles) -> str:
    """Markdown: a table for each set of captions and seed, since only figures that share them compare."""
    parts = [f"# {TITLE}", *stand_in_notice(stand_ins)]
    for title, section in _sections(rows).items():
        parts += [f"## {title}", markdown_table(*figures_cells(section, styles))]
        parts += [] if any(row["model"] == "teacher" for row in section) else [NO_TEACHER]
    return "\n\n".join(parts) + "\n"


def comparison_chart(rows: Rows, stand_ins: Sequence[str], styles: FigureStyles) -> Callable[[Path], None]:
    """`comparison_panels` in rows; the result writes a PNG file to a path."""
    return partial(draw_chart, comparison_panels(rows, styles), "\n".join([TITLE, *stand_in_notice(stand_ins, "{}")]))


def comparison_panels(rows: Rows, styles: FigureStyles) -> list[Panel]:
    """A panel a figure of images, against network evaluations (NFE) per image.

    A colour is a model, a mark a sampler and a stroke a guidance scale, the same in all panels. A teacher's solver that
    was measured in one number of steps is a horizontal line.
    """
    shown = _named([row for row in of_images(rows) if row["model"] != "real"])
    places = [list(dict.fromkeys(row[key] for row in shown)) for key in LOOKS]
    sections = _sections(shown)
    return [
        _panel(section, column, places, f"\n{title}" if len(sections) > 1 else "")
        for title, section in sections.items()
        for column in figure_columns(section, styles)
    ]


def _sections(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """Rows that compare, by captions and seed in words, in order of appearance."""
    sections: dict[str, list[Mapping[str, Any]]] = {}
    for row, title in zip(rows, caption_set_titles(rows), strict=True):
        sections.setdefault(title, []).append(row)
    return sections


def _short_names(runs: Collection[str]) -> dict[str, str]:
    """Of each run as much of its path, from the end, as tells all of them apart."""
    paths = {run: Path(run).parts for run in runs}
    for length in range(1, max(map(len, paths.values()), default=0) + 1):
        names = {run: str(Path(*parts[-length:])) for run, parts in paths.items()}
        if len({*names.values()}) == len(names):
            return names
    return {run: run for run in runs}


def _named(rows: Rows) -> list[Mapping[str, Any]]:
    """Rows with the `name` of their model, or of a student's run; with its checkpoint where it has several."""
    short = _short_names({row["run"] for row in rows if row["run"]})
    names = [short.get(row["run"]) or model_title(row["model"]) for row in rows]
    checkpoints: dict[str, set[str | None]] = {}
    for name, row in zip(names, rows, strict=True):
        checkpoints.setdefault(name, set()).add(row["checkpoint_sha256"])
    return [
        {**row, "name": f"{name}, checkpoint {sha256:.8}" if sha256 and len(checkpoints[name]) > 1 else name}
        for name, row in zip(names, rows, strict=True)
        for sha256 in [row["checkpoint_sha256"]]
    ]


def _panel(rows: Rows, column: FigureColumn, looks: Sequence[Sequence[Any]], title: str) -> Panel:
    """Lines through numbers of steps; `looks` are the names, samplers and guidance scales of all panels."""
    curves: dict[tuple[Any, ...], dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        if column.shows(row):
            curves.setdefault(tuple(row[key] for key in LOOKS), {})[row["network_evaluations"]] = row
    lines, teachers = list[Line](), list[tuple[str, float]]()
    for key, curve in curves.items():
        points = [curve[x] for x in sorted(curve)]
        if len(points) == 1 and points[0]["model"] == "teacher":
            teachers.append((_label(points[0], points[0]["steps"]), points[0]["value"]))
            continue
        colour, mark, stroke = (known.index(value) for known, value in zip(looks, key, strict=True))
        values = [row["value"] for row in points]
        label = _label(points[0])
        lines.append(Line(sorted(curve), values, [0.0] * len(curve), colour, label, mark=mark, stroke=stroke))
    return Panel(
        "network evaluations to an image", column.heading + title, lines, column.style.logarithmic, teachers,
        logarithmic_x=True,
    )  # fmt: skip


def _label(row: Mapping[str, Any], steps: int | None = None) -> str:
    """What a line is of: a model, its solver, in so many steps, and a guidance scale."""
    solver = "" if row["sampler"] == "consistency" else row["sampler"]
    sampling = steps_title(solver, steps) if steps else solver_title(solver)
    return ", ".join(filter(None, [row["name"], sampling, f"guidance {row['guidance']:g}"]))
