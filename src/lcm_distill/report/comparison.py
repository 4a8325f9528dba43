"""Figures across runs: tables and a chart. Rows are those of `metrics.parquet` with the run they belong to."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lcm_distill.report.charts import Line, Panel, draw_chart
from lcm_distill.report.figure_columns import FigureColumn, FigureStyles, figure_columns, of_images
from lcm_distill.report.tables import figures_cells, markdown_table, model_title, stand_in_notice

Rows = Sequence[Mapping[str, Any]]

TITLE = "Figures across runs"
NO_TEACHER = "No teacher was measured on these captions: `lcm evaluate --models teacher` adds one beside the students."


def comparison_text(rows: Rows, stand_ins: Sequence[str], styles: FigureStyles) -> str:
    """Markdown: a table for each set of captions and seed, since only figures that share them compare."""
    parts = [f"# {TITLE}", *stand_in_notice(stand_ins)]
    for title, section in _sections(rows).items():
        parts += [f"## {title}", markdown_table(*figures_cells(section, styles))]
        parts += [] if any(row["model"] == "teacher" for row in section) else [NO_TEACHER]
    return "\n\n".join(parts) + "\n"


def comparison_chart(rows: Rows, stand_ins: Sequence[str], styles: FigureStyles) -> Callable[[Path], None]:
    """`comparison_panels` side by side; the result writes a PNG file to a path."""
    return partial(draw_chart, comparison_panels(rows, styles), "\n".join([TITLE, *stand_in_notice(stand_ins, "{}")]))


def comparison_panels(rows: Rows, styles: FigureStyles) -> list[Panel]:
    """A panel a figure, against network evaluations (NFE) per image."""
    sections = _sections(rows)
    return [
        Panel(
            "network evaluations to an image",
            column.heading if len(sections) == 1 else f"{column.heading}\n{title}",
            _lines(section, column),
            column.style.logarithmic,
            logarithmic_x=True,
        )
        for title, section in sections.items()
        for column in figure_columns([row for row in section if row["model"] != "real"], styles)
    ]


def _sections(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """Rows that compare, by captions and seed in words, in order of appearance."""
    sections: dict[str, list[Mapping[str, Any]]] = {}
    images = {row["prompts"]: row["images"] for row in of_images(rows) if row["model"] != "real"}
    for row in rows:
        noise = ", the same noise for every image" if row["same_noise"] else ""
        title = f"{images.get(row['prompts'], row['images']):,} captions, {row['prompts']}, seed {row['seed']}{noise}"
        sections.setdefault(title, []).append(row)
    return sections


def _lines(rows: Rows, column: FigureColumn) -> list[Line]:
    """One a model, sampler, guidance scale and checkpoint, through its numbers of steps."""
    shown = [row for row in rows if row["model"] != "real" and column.shows(row)]
    checkpoints: dict[str, set[str | None]] = {}
    for row in shown:
        checkpoints.setdefault(_label(row), set()).add(row["checkpoint_sha256"])
    curves: dict[str, dict[int, float]] = {}
    for row in shown:
        label = _label(row)
        several = len(checkpoints[label]) > 1
        label += f", checkpoint {row['checkpoint_sha256']:.8}" if several and row["checkpoint_sha256"] else ""
        curves.setdefault(label, {})[row["network_evaluations"]] = row["value"]
    return [
        Line(sorted(curve), [curve[x] for x in sorted(curve)], [0.0] * len(curve), colour, label)
        for colour, (label, curve) in enumerate(curves.items())
    ]


def _label(row: Mapping[str, Any]) -> str:
    """What a row's line is of, but for its checkpoint."""
    is_teacher = row["model"] == "teacher"
    name = f"teacher, {row['sampler'].capitalize()}" if is_teacher else row["run"] or model_title(row["model"])
    other = "" if is_teacher or row["sampler"] in ("consistency", "none") else f", {row['sampler']}"
    return f"{name}{other}, guidance {row['guidance']:g}"
