"""Figures across runs: tables and charts. Rows are those of `metrics.parquet` with the run they belong to."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lcm_distill.report.caption_sets import caption_set_titles
from lcm_distill.report.charts import MODEL_COLOURS, Line, Panel, student_colour
from lcm_distill.report.distinctions import distinction
from lcm_distill.report.figure_columns import FigureStyles, figure_columns, of_images
from lcm_distill.report.tables import (
    figures_cells,
    markdown_table,
    model_title,
    solver_title,
    stand_in_notice,
    steps_title,
)

Row = Mapping[str, Any]
Rows = Sequence[Row]

TITLE = "Figures across runs"
NO_TEACHER = "No teacher was measured on these captions: `lcm evaluate --models teacher` adds one beside the students."
LEFT_OUT = {"teacher": "few-step teacher", "untrained": "untrained student"}
"""What charts of several students may leave out, in words."""


def comparison_text(rows: Rows, stand_ins: Sequence[str], without: Sequence[str], styles: FigureStyles) -> str:
    """Markdown: a table for each set of captions and seed, since only figures that share them compare.

    Args:
        without: sentences about runs that have no figures.
    """
    parts = [f"# {TITLE}", *stand_in_notice(stand_ins)]
    for title, section in _sections(rows).items():
        parts += [f"## {title}", markdown_table(*figures_cells(section, styles))]
        parts += [] if any(row["model"] == "teacher" for row in section) else [NO_TEACHER]
    return "\n\n".join([*parts, *without]) + "\n"


def comparison_panels(rows: Rows, preferred: Sequence[float], styles: FigureStyles) -> list[Panel]:
    """A panel a figure of images and set of captions, against network evaluations (NFE) per image.

    A colour is a model and a mark a sampler, the same in all panels; all lines are at one guidance scale. A teacher's
    solver that was measured in one number of steps is a horizontal line. Where several students are compared, the
    axes are theirs: the untrained student is left out, and of a teacher all but its sampling of the most evaluations.

    Args:
        preferred: guidance scales of the runs' configurations, which decide where as many students have several.
    """
    shown = _named([row for row in of_images(rows) if row["model"] != "real"])
    students = list(dict.fromkeys(row["name"] for row in shown if row["model"] == "student"))
    samplers = list(dict.fromkeys(row["sampler"] for row in shown))
    sections, numbers, panels = _sections(shown), list(_sections(rows)), list[Panel]()
    for captions, section in sections.items():
        kept, shared = _at_one_scale(section, preferred)
        compared = _beside_students(kept)
        left_out = [LEFT_OUT[model] for model in dict.fromkeys(row["model"] for row in kept if row not in compared)]
        below = [captions, *([f"in the table alone: {', '.join(left_out)}"] if left_out else [])]
        number = f"-{numbers.index(captions) + 1}" if len(sections) > 1 else ""
        for column in figure_columns(compared, styles):
            lines, teachers = _lines([row for row in compared if column.shows(row)], students, samplers, shared)
            title = "\n".join([f"{column.title} at guidance {shared:g}", *below])
            panels.append(
                Panel(
                    "network evaluations to an image", column.heading, lines, column.style.logarithmic, teachers,
                    logarithmic_x=True, title=title, name=column.name + number,
                )
            )  # fmt: skip
    return panels


def _at_one_scale(rows: Rows, preferred: Sequence[float]) -> tuple[list[Row], float]:
    """Rows at the guidance scale that most students have, and this scale; of models without it, those at their own."""
    scales: dict[str, dict[float, None]] = {}
    for row in rows:
        scales.setdefault(row["name"], {})[row["guidance"]] = None
    voting = {row["name"] for row in rows if row["model"] == "student"} or {*scales}
    votes = Counter(scale for name, known in scales.items() if name in voting for scale in known)
    shared = max(votes, key=lambda scale: (votes[scale], preferred.count(scale)))
    own = {name: shared if shared in known else max(known, key=preferred.count) for name, known in scales.items()}
    return [row for row in rows if row["guidance"] == own[row["name"]]], shared


def _beside_students(rows: Rows) -> list[Row]:
    """All rows of one student; of several, theirs and those of each teacher's sampling of the most evaluations."""
    if len({row["name"] for row in rows if row["model"] == "student"}) < 2:
        return list(rows)
    most = Counter[str]()
    for row in rows:
        most[row["name"]] = max(row["network_evaluations"], most[row["name"]])
    best = [row for row in rows if row["model"] == "teacher" and row["network_evaluations"] == most[row["name"]]]
    return [*best, *(row for row in rows if row["model"] == "student")]


def _sections(rows: Rows) -> dict[str, list[Row]]:
    """Rows that compare, by captions and seed in words, in order of appearance."""
    sections: dict[str, list[Row]] = {}
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


def _named(rows: Rows) -> list[Row]:
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


def _lines(
    rows: Rows, students: Sequence[str], samplers: Sequence[str], shared: float
) -> tuple[list[Line], list[tuple[str, float]]]:
    """Lines through numbers of steps, and horizontal lines of teachers.

    A line goes through what was measured last. What was measured before with other sigmas, or in another dtype, is a
    point of its own, and labels tell them apart.

    Args:
        rows: of one figure. students, samplers: names of all panels. shared: guidance scale, which labels leave out.
    """
    lines, teachers = list[Line](), list[tuple[str, float]]()
    for key in dict.fromkeys((row["name"], row["sampler"]) for row in rows):
        curve = _curve([row for row in rows if (row["name"], row["sampler"]) == key])
        first, colour, mark = curve[0][0], _colour(curve[0][0], students), samplers.index(key[1])
        if first["model"] == "teacher" and len(curve) == 1:
            steps = steps_title(first["sampler"], first["steps"])
            teachers += [(_label(row, steps, shared, distinction(row, curve[0])), row["value"]) for row in curve[0]]
            continue
        solver = "" if first["sampler"] == "consistency" else solver_title(first["sampler"])
        points = [[found[-1] for found in curve], *([row] for found in curve for row in found[:-1])]
        for number, line in enumerate(points):
            said = [_measured(row, found) for found in curve for row in found if row in line and len(found) > 1]
            x, y = [row["network_evaluations"] for row in line], [row["value"] for row in line]
            label = _label(first, solver, shared, *said)
            lines.append(Line(x, y, [0.0] * len(x), colour, label, number == 0, mark=mark + number))
    return lines, teachers


def _curve(rows: Rows) -> list[list[Row]]:
    """Rows by their number of network evaluations, rising, each in the order in which they were measured."""
    curve: dict[int, list[Row]] = {}
    for row in sorted(rows, key=lambda row: str(row.get("time") or "")):
        curve.setdefault(row["network_evaluations"], []).append(row)
    return [curve[evaluations] for evaluations in sorted(curve)]


def _measured(row: Row, found: Rows) -> str:
    """What tells a row from others of its number of steps; empty where there are none."""
    said = distinction(row, found)
    return f"{steps_title('', row['steps'])} with {said}" if said else ""


def _colour(row: Row, students: Sequence[str]) -> int:
    """That of the model, or of one of the students."""
    student = row["model"] == "student"
    return student_colour(students.index(row["name"])) if student else MODEL_COLOURS[row["model"]]


def _label(row: Row, sampling: str, shared: float, *others: str) -> str:
    """What a line is of: a model, its sampling, and a guidance scale that is not the shared one."""
    guidance = "" if row["guidance"] == shared else f"guidance {row['guidance']:g}"
    return ", ".join(filter(None, [row["name"], sampling, guidance, *others]))
