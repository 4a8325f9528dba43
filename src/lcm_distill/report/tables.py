"""Tables of figures, for the terminal and in Markdown."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from rich.table import Table

from lcm_distill.report.distinctions import sigmas_text
from lcm_distill.report.figure_columns import LATENTS, FigureStyles, column_key, figure_columns, of_images

Row = Mapping[str, Any]
Column = tuple[str, str, str]
"""Key of a row, heading, and the format of its values."""

RUN: Column = ("run", "run", "{}")
SAMPLING: tuple[Column, ...] = (
    ("model", "model", "{}"), ("sampler", "sampler", "{}"), ("steps", "steps", "{}"), ("guidance", "guidance", "{:g}"),
)  # fmt: skip
COSTS: tuple[Column, ...] = (
    ("network_evaluations", "network evaluations", "{}"), ("seconds_per_image", "seconds per image", "{:.4f}"),
)  # fmt: skip
SIGMAS: Column = ("sigmas", "sigmas", "{}")
WARNING: Column = ("warning", "warning", "{}")
CIRCUMSTANCES: tuple[Column, ...] = (
    ("seed", "seed", "{}"),
    ("same_noise", "same noise", "{}"),
    ("prompts", "prompts", "{}"),
    ("images", "images", "{:,}"),
    SIGMAS,
    ("checkpoint_sha256", "checkpoint", "{:.8}"),
    ("dtype", "dtype", "{}"),
)
"""Columns that a table has only where they distinguish rows of the same sampling."""

SOLVERS = ("euler", "heun")
"""Samplers that have the name of a person."""

USUAL = re.compile("(.+), ([0-9,]+) are usual")
"""What there is too little of for a figure, several joined by "and", and how many are usual."""

CAPTION = "Distances are to real images of the same captions; row `real` is the distance of images of other captions."


def figures_cells(rows: Sequence[Row], styles: FigureStyles) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the table of rows of `metrics.parquet`, one line a set of images.

    Columns of circumstances that are the same in every line of a sampling are left out. Sigmas, which are long, stand
    after the figures.
    """
    columns = figure_columns(rows, styles)
    lines = _one_line_per_image_set(rows, {column.key: column.heading for column in columns})
    run, varying = [RUN] if any(line.get("run") for line in lines) else [], _varying(lines)
    before = [*run, *SAMPLING, *(column for column in varying if column != SIGMAS)]
    after = [*COSTS, *(column for column in varying if column == SIGMAS)]
    after += [WARNING] if any(line.get("warning") for line in lines) else []
    said = [_sigmas(line, lines) for line in lines]
    for line, sigmas in zip(lines, said, strict=True):
        line[SIGMAS[0]] = sigmas
    headings = [
        *(heading for _, heading, _ in before),
        *(column.heading for column in columns),
        *(heading for _, heading, _ in after),
    ]
    cells = [
        [
            *(_cell(line, column) for column in before),
            *(column.cell(line.get(column.heading)) for column in columns),
            *(_cell(line, column) for column in after),
        ]
        for line in lines
    ]
    return headings, cells


def _one_line_per_image_set(rows: Sequence[Row], headings: Mapping[Any, str]) -> list[dict[str, Any]]:
    """Rows of `metrics.parquet` with all figures of one set of images side by side, each under its heading."""
    names = [name for name, _, _ in (RUN, *SAMPLING, *CIRCUMSTANCES)]
    same_sampling = [name for name in names if name not in ("images", "dtype")]
    merged: dict[str, dict[str, Any]] = {}
    lines: dict[str, dict[str, Any]] = {}
    for row in (*of_images(rows), *(row for row in rows if row["protocol"] == LATENTS)):
        key, sampling = (str([row.get(name) for name in chosen]) for chosen in (names, same_sampling))
        if row["protocol"] == LATENTS:  # of fewer samples, and in float32: in the line of the sampling's images
            line = lines.get(sampling) or merged.setdefault(key, {**row})
        else:
            line = lines[sampling] = merged.setdefault(key, {**row})
        line[headings[column_key(row)]] = row["value"]
        said = [*(line.get("warning") or "").split("; "), *(row.get("warning") or "").split("; ")]  # of all its figures
        line["warning"] = "; ".join(_said_once(said)) or None
    return list(merged.values())


def _said_once(warnings: Iterable[str]) -> list[str]:
    """Warnings of several figures, each thing once: with the largest number that is usual for one of them."""
    usual, others = dict[str, int](), dict[str, None]()
    for warning in filter(None, warnings):
        if found := USUAL.fullmatch(warning):
            number = int(found[2].replace(",", ""))
            usual |= {few: max(number, usual.get(few, 0)) for few in found[1].split(" and ")}
        else:
            others[warning] = None
    together = dict[int, list[str]]()
    for few, number in usual.items():
        together.setdefault(number, []).append(few)
    return [*(f"{' and '.join(few)}, {number:,} are usual" for number, few in together.items()), *others]


def _varying(lines: Sequence[Row]) -> list[Column]:
    """The circumstances that distinguish lines of the same sampling."""
    samplings = [str([line.get(name) for name, _, _ in (RUN, *SAMPLING)]) for line in lines]

    def varies(name: str) -> bool:
        values = {(sampling, str(line.get(name))) for sampling, line in zip(samplings, lines, strict=True)}
        return len(values) > len(set(samplings))

    return [column for column in CIRCUMSTANCES if varies(column[0])]


def _sigmas(line: Row, lines: Sequence[Row]) -> str:
    """Noise levels of a line; of a solver, whose steps say them, only where it has others in as many steps."""
    if line["sampler"] not in SOLVERS:
        return sigmas_text(line["sigmas"])
    sampling = [name for name, _, _ in (RUN, *SAMPLING)]
    alike = [other for other in lines if all(other.get(name) == line.get(name) for name in sampling)]
    return sigmas_text(line["sigmas"]) if any(other["sigmas"] != line["sigmas"] for other in alike) else ""


def _cell(line: Row, column: Column) -> str:
    key, _, form = column
    value = line.get(key)
    return "" if value is None else form.format(value)


def metrics_table(rows: Sequence[Row], title: str, styles: FigureStyles, width: int | None = None) -> Table:
    """Rows of `metrics.parquet` for the terminal, teacher and student beside each other.

    Args:
        width: of the terminal; the last columns are left out where they do not fit, and named. None: all fit.
    """
    headings, cells = figures_cells(rows, styles)
    widths, kept = _fitting(headings, cells, width)
    notes = [CAPTION] if any(row["model"] == "real" for row in rows) else []
    if WARNING[1] in headings[kept:]:
        notes += _said_once(warning for line in cells for warning in line[-1].split("; "))
    if left := [heading for heading in headings[kept:] if heading != WARNING[1]]:
        notes.append(f"No room for {', '.join(left)}.")
    table = Table(title=title, title_justify="left", caption="\n".join(notes) or None, caption_justify="left")
    for heading, column_width in zip(headings[:kept], widths, strict=False):
        justify = "left" if heading in ("run", "model", "sampler") else "right"
        table.add_column(heading, justify=justify, overflow="fold", width=column_width)
    for line in cells:
        table.add_row(*line[:kept])
    return table


def _fitting(
    headings: Sequence[str], cells: Sequence[Sequence[str]], width: int | None
) -> tuple[Sequence[int | None], int]:
    """Widths of columns, None where rich may choose, and how many of the first ones fit a terminal.

    A column fits with whole cells and whole words of its heading; the sampling and one figure are kept in any case.
    """
    columns = [(heading, max(map(len, column), default=0)) for heading, *column in zip(headings, *cells, strict=True)]
    whole = [max(len(heading), cell) for heading, cell in columns]
    if width is None or _ends(whole)[-1] <= width:
        return [None] * len(headings), len(headings)
    broken = [max(cell, *map(len, heading.split())) for heading, cell in columns]
    return broken, max(headings.index(SAMPLING[-1][1]) + 2, sum(end <= width for end in _ends(broken)))


def _ends(widths: Sequence[int]) -> list[int]:
    """Where columns end in the terminal, with the border and the space on each side."""
    return list(accumulate(widths, lambda end, column: end + column + 3, initial=1))[1:]


def plain_table(rows: Sequence[Row], title: str | None = None) -> Table:
    """Any rows that share their keys, for the terminal."""
    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ():
        table.add_column(str(name), overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    return table


def model_title(model: str) -> str:
    """A model of `metrics.parquet` in words."""
    return "untrained student" if model == "untrained" else model


def solver_title(sampler: str) -> str:
    """A sampler in words: solvers are names of people."""
    return sampler.capitalize() if sampler in SOLVERS else sampler


def steps_title(sampler: str, steps: int) -> str:
    """Number of steps and sampler in words; an empty name is left out."""
    return " ".join(filter(None, [str(steps), solver_title(sampler), "steps" if steps > 1 else "step"]))


def sampling_title(model: str, sampler: str, steps: int) -> str:
    """Model and number of steps in words, with the solver of a teacher and the original sampler of a student."""
    named = model == "teacher" or sampler == "original"
    return f"{model_title(model)}, {steps_title(sampler if named else '', steps)}"


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown that also reads as plain text: the first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        others = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return f"| {' | '.join([cells[0].ljust(widths[0]), *others])} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(headings), f"| {' | '.join(rule)} |", *map(line, rows)])


def stand_in_notice(stand_ins: Sequence[str], form: str = "**{}**") -> list[str]:
    """One sentence where parts of the run are stand-ins of the `shapes` default, none where all parts are real."""
    sentence = f"shapes: stand-in {', '.join(stand_ins)}; figures compare with each other only"
    return [form.format(sentence)] if stand_ins else []
