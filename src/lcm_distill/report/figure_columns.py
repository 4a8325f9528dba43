"""Columns of figures: which metric, under which protocol, against which reference, and how values are written.

Rows are those of `metrics.parquet`. Styles are `lcm_distill.metrics.figure_styles`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from unicodedata import normalize

LATENTS = "latents"
"""In place of a protocol: figures of a student's latents beside its teacher's, for which no image is decoded."""
LONGEST = 100
"""Letters of a figure's name in that of a file at most."""
TO_TEACHER = "teacher_distance"
"""The metric whose reference are images of the teacher at the row's own guidance scale, and so others at each scale."""


@dataclass(frozen=True)
class FigureStyle:
    """How the values of a metric are shown.

    Attributes:
        title: display name.
        form: format string of a value, with its unit where it has one.
        logarithmic: whether values span orders of magnitude, so that a chart needs a logarithmic axis.
    """

    title: str
    form: str = "{:.3f}"
    logarithmic: bool = False


@dataclass(frozen=True)
class FigureStyles:
    """Styles of all metrics.

    Attributes:
        styles: style by metric name, in the order of columns.
        unnamed: protocols that are left out of headings, since their figures appear under no other protocol.
    """

    styles: Mapping[str, FigureStyle]
    unnamed: frozenset[str] = field(default_factory=frozenset[str])

    def of(self, metric: str) -> FigureStyle:
        """Style of a metric; one that has none is shown under its own name."""
        return self.styles.get(metric) or FigureStyle(metric.replace("_", " "))

    def position(self, metric: str) -> int:
        """Place among the columns of a protocol."""
        names = list(self.styles)
        return names.index(metric) if metric in names else len(names)


@dataclass(frozen=True)
class FigureColumn:
    """One metric under one protocol, compared with one reference.

    Attributes:
        heading: title of the column.
        style: how values are shown.
    """

    metric: str
    protocol: str
    reference: str | None
    heading: str
    style: FigureStyle

    def shows(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of `metrics.parquet` belongs in this column."""
        return column_key(row) == self.key

    @property
    def key(self) -> tuple[str, str, str | None]:
        """Metric, protocol and reference, as `column_key` gives them for a row."""
        return self.metric, self.protocol, self.reference

    def cell(self, value: float | None) -> str:
        """A value as it is written; empty for None."""
        return "" if value is None else self.style.form.format(value)

    @property
    def title(self) -> str:
        """The heading, capitalised for a section of its own."""
        return self.heading[0].upper() + self.heading[1:]

    @property
    def name(self) -> str:
        """The heading as part of a file's name, such as `frechet-distance`."""
        letters = normalize("NFKD", self.heading).encode("ascii", "ignore").decode().lower()
        return "-".join(re.findall("[a-z0-9]+", letters))[:LONGEST]


def column_key(row: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """Metric, protocol and reference of a row of `metrics.parquet`; a teacher's images go by their sampling."""
    reference = row["reference"]
    if row["metric"] == TO_TEACHER and reference:
        reference = reference.rpartition(":")[0]
    return row["metric"], row["protocol"], reference


def of_images(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows of `metrics.parquet` whose figures were measured on images."""
    return [row for row in rows if row["protocol"] != LATENTS]


def figure_columns(rows: Iterable[Mapping[str, Any]], styles: FigureStyles) -> list[FigureColumn]:
    """The columns that rows of `metrics.parquet` fill, protocols in order of appearance.

    A reference is named only where a metric was measured against several under one protocol.
    """
    found = list(dict.fromkeys(map(column_key, rows)))
    protocols = list(dict.fromkeys(protocol for _, protocol, _ in found))
    references = Counter((metric, protocol) for metric, protocol, _ in found)
    columns: list[FigureColumn] = []
    for metric, protocol, reference in sorted(
        found, key=lambda key: (protocols.index(key[1]), styles.position(key[0]))
    ):
        named = [] if protocol in styles.unnamed else [protocol]
        named += [reference] if reference and references[metric, protocol] > 1 else []
        style = styles.of(metric)
        heading = style.title + (f" ({', '.join(named)})" if named else "")
        columns.append(FigureColumn(metric, protocol, reference, heading, style))
    return columns
