"""Figures across runs: tables and a chart. Rows are those of `metrics.parquet`, after the run they are of."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lcm_distill.report.charts import Line, Panel, draw_chart
from lcm_distill.report.tables import Figure, figures_cells, figures_of, markdown_table, stand_in_notice

Rows = Sequence[Mapping[str, Any]]

NO_TEACHER = "No teacher was measured on these captions: `lcm evaluate --models teacher` puts one beside the students."


def comparison_text(rows: Rows, stand_ins: Sequence[str]) -> str:
    """Markdown: a table for all figures of the same captions under the same seed, since those alone compare."""
    parts = ["# Figures across runs", *stand_in_notice(stand_ins)]
    for title, same in _sections(rows).items():
        parts += [f"## {title}", markdown_table(*figures_cells(same))]
        parts += [] if any(row["model"] == "teacher" for row in same) else [NO_TEACHER]
    return "\n\n".join(parts) + "\n"


def comparison_chart(rows: Rows, stand_ins: Sequence[str]) -> Callable[[Path], None]:
    """A panel a figure, against the forward passes an image takes; writes a PNG file to the path it is given."""
    sections = _sections(rows)
    panels = [
        Panel(
            "network evaluations to an image",
            figure.heading if len(sections) == 1 else f"{figure.heading}\n{title}",
            _lines(same, figure),
            figure.logarithmic,
            logarithmic_x=True,
        )
        for title, same in sections.items()
        for figure in figures_of(row for row in same if row["model"] != "real")
    ]
    return partial(draw_chart, panels, "\n".join(["Figures across runs", *stand_in_notice(stand_ins, "{}")]))


def _sections(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """Rows that compare, by what they have in common, in order of appearance."""
    sections: dict[str, list[Mapping[str, Any]]] = {}
    images = {row["prompts"]: row["images"] for row in rows if row["model"] != "real"}
    for row in rows:
        noise = ", the same noise for every image" if row["same_noise"] else ""
        title = f"{images.get(row['prompts'], row['images']):,} captions, {row['prompts']}, seed {row['seed']}{noise}"
        sections.setdefault(title, []).append(row)
    return sections


def _lines(rows: Rows, figure: Figure) -> list[Line]:
    """One a model, sampler and guidance scale, through its numbers of steps."""
    points: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["model"] != "real" and figure.shows(row):
            name = row["run"] or f"teacher, {row['sampler'].capitalize()}"
            label = f"{name}, guidance {row['guidance']:g}"
            points.setdefault(label, {})[row["network_evaluations"]] = row["value"]
    return [
        Line(sorted(line), [line[x] for x in sorted(line)], [0.0] * len(line), colour, label)
        for colour, (label, line) in enumerate(points.items())
    ]
