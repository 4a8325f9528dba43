"""Tables of figures for the terminal."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

NAMES = {
    "fid": ("FID", "{:.2f}"),
    "frechet_distance": ("Fréchet distance", "{:.2f}"),
    "fd_dinov2": ("FD-DINOv2", "{:.2f}"),
    "kid": ("KID", "{:.5f}"),
    "cmmd": ("CMMD", "{:.3f}"),
    "precision": ("precision", "{:.3f}"),
    "recall": ("recall", "{:.3f}"),
    "density": ("density", "{:.3f}"),
    "coverage": ("coverage", "{:.3f}"),
    "clip_score": ("CLIP score", "{:.4f}"),
    "caption_accuracy": ("caption accuracy", "{:.1%}"),
}
"""What a metric is called in a table, and how its values are written; in the order of columns."""

BEFORE = (("model", "model", "{}"), ("sampler", "sampler", "{}"), ("steps", "steps", "{}"),
          ("guidance", "guidance", "{:g}"))  # fmt: skip
AFTER = (("network_evaluations", "network evaluations", "{}"), ("seconds_per_image", "seconds per image", "{:.4f}"))
VARYING = (
    ("seed", "seed", "{}"),
    ("same_noise", "same noise", "{}"),
    ("prompts", "prompts", "{}"),
    ("images", "images", "{:,}"),
    ("sigmas", "sigmas", "{}"),
    ("checkpoint_sha256", "checkpoint", "{:.8}"),
    ("dtype", "dtype", "{}"),
)
"""Columns that stand in a table only where they tell rows of one way of drawing apart."""

CAPTION = "Distances are to real images of the captions drawn; row `real` is the distance of images of other captions."


@dataclass(frozen=True)
class Figure:
    """A column of figures: one metric under one protocol, compared with one reference.

    Attributes:
        heading: as the column is called.
    """

    metric: str
    protocol: str
    reference: str | None
    heading: str

    @property
    def logarithmic(self) -> bool:
        """Whether it spans orders of magnitude."""
        return self.metric in ("fid", "frechet_distance", "fd_dinov2")

    def shows(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of `metrics.parquet` belongs in this column."""
        return _column(row) == (self.metric, self.protocol, self.reference)

    def cell(self, value: float | None) -> str:
        """A value as it is written; nothing for none."""
        return "" if value is None else NAMES[self.metric][1].format(value)


def figures_of(rows: Iterable[Mapping[str, Any]]) -> list[Figure]:
    """The figures that rows of `metrics.parquet` tell, protocols in order of appearance.

    The protocol `shapes` goes without saying, and so does a reference where there is no other.
    """
    found = list(dict.fromkeys(map(_column, rows)))
    protocols, metrics = list(dict.fromkeys(protocol for _, protocol, _ in found)), list(NAMES)
    alone = Counter((metric, protocol) for metric, protocol, _ in found)
    figures = []
    for metric, protocol, reference in sorted(found, key=lambda one: (protocols.index(one[1]), metrics.index(one[0]))):
        told = [protocol] if protocol != "shapes" else []
        told += [reference] if reference and alone[metric, protocol] > 1 else []
        name = NAMES[metric][0] + (f" ({', '.join(told)})" if told else "")
        figures.append(Figure(metric, protocol, reference, name))
    return figures


def _column(row: Mapping[str, Any]) -> tuple[str, str, str | None]:
    return row["metric"], row["protocol"], row["reference"]


def one_row_a_way(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `metrics.parquet` with all figures of one set of images side by side, each under its heading."""
    headings = {(one.metric, one.protocol, one.reference): one.heading for one in figures_of(rows)}
    merged: dict[str, dict[str, Any]] = {}
    for row in rows:
        key = str([row.get(name) for name, _, _ in (("run", "", ""), *BEFORE, *VARYING)])
        merged.setdefault(key, {**row})[headings[_column(row)]] = row["value"]
    return list(merged.values())


def figures_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the table of rows of `metrics.parquet`, one line a set of images.

    Columns that would say the same in every line of a way of drawing are left out.
    """
    lines, figures = one_row_a_way(rows), figures_of(rows)
    ways = [str([line.get(name) for name, _, _ in (("run", "", ""), *BEFORE)]) for line in lines]
    varying = [
        column
        for column in VARYING
        if len({(sampling, str(line.get(column[0]))) for sampling, line in zip(ways, lines, strict=True)})
        > len(set(ways))
    ]
    run = [("run", "run", "{}")] if any(line.get("run") for line in lines) else []
    before, after = [*run, *BEFORE, *varying], AFTER
    headings = [
        *(name for _, name, _ in before),
        *(figure.heading for figure in figures),
        *(name for _, name, _ in after),
    ]
    cells = [
        [
            *(_cell(line, *column) for column in before),
            *(figure.cell(line.get(figure.heading)) for figure in figures),
            *(_cell(line, *column) for column in after),
        ]
        for line in lines
    ]
    return headings, cells


def _cell(line: Mapping[str, Any], key: str, _: str, form: str) -> str:
    value = line.get(key)
    if isinstance(value, list):
        return " ".join(f"{one:g}" for one in value)
    return "" if value is None else form.format(value)


def metrics_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Teacher and student beside each other."""
    caption = CAPTION if any(row["model"] == "real" for row in rows) else None
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    headings, cells = figures_cells(rows)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("run", "model", "sampler") else "right")
    for line in cells:
        table.add_row(*line)
    return table


def plain_table(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> Table:
    """Any rows that share their keys."""
    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ():
        table.add_column(str(name))
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    return table


def sampling_title(model: str, sampler: str, steps: int) -> str:
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
