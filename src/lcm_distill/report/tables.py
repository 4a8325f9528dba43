"""Tables of figures for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

COLUMNS = (
    ("model", "model", "{}"),
    ("sampler", "sampler", "{}"),
    ("steps", "steps", "{}"),
    ("guidance", "guidance", "{:g}"),
    ("frechet_distance", "Fréchet distance", "{:.2f}"),
    ("caption_accuracy", "caption accuracy", "{:.1%}"),
    ("network_evaluations", "network evaluations", "{}"),
    ("seconds_per_image", "seconds per image", "{:.4f}"),
)

CAPTION = (
    "Distances are to real pictures of the captions drawn; row `real` is the distance of pictures of other captions."
)


def one_row_a_model(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `metrics.parquet` with the figures of one way of drawing side by side, in order of appearance."""
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("model", "sampler", "steps", "guidance", "images", "checkpoint_sha256"))
        merged.setdefault(key, {**row})[row["metric"]] = row["value"]
    return list(merged.values())


def metrics_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Teacher and student beside each other."""
    table = Table(title=title, title_justify="left", caption=CAPTION, caption_justify="left")
    for _, heading, _ in COLUMNS:
        table.add_column(heading, justify="left" if heading in ("model", "sampler") else "right")
    for row in one_row_a_model(rows):
        table.add_row(*("" if row.get(key) is None else form.format(row[key]) for key, _, form in COLUMNS))
    return table


def plain_table(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> Table:
    """Any rows that share their keys."""
    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ():
        table.add_column(str(name))
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    return table


def way_title(model: str, sampler: str, steps: int) -> str:
    """A way of drawing in words; a student's sampler goes without saying."""
    solver = f" {sampler.capitalize()}" if model == "teacher" else ""
    return f"{model}, {steps}{solver} step{'s' if steps > 1 else ''}"


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown that also reads as plain text: the first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        others = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return f"| {' | '.join([cells[0].ljust(widths[0]), *others])} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(headings), f"| {' | '.join(rule)} |", *map(line, rows)])


def stand_in_notice(stand_ins: Sequence[str], form: str = "**{}**") -> list[str]:
    """One sentence where parts are the embedded default's, none where all is real."""
    sentence = f"shapes: stand-in {', '.join(stand_ins)}; figures compare with each other only"
    return [form.format(sentence)] if stand_ins else []
