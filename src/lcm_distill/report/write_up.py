# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportUnknownLambdaType=false
"""A result in three forms: Parquet for queries, Markdown to read, charts to look at."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
from PIL import Image

from lcm_distill.pipeline.atomic_writes import commit_bytes, commit_file
from lcm_distill.pipeline.hashed_parquet import encode_table
from lcm_distill.report.charts import Panel, draw_chart
from lcm_distill.report.tables import stand_in_notice

SUFFIXES = (".md", ".parquet")


def write_up(
    stem: Path, table: pa.Table, text: str, panels: Sequence[Panel], stand_ins: Sequence[str]
) -> Sequence[Path]:
    """Commit a chart for each panel, then `stem` with the suffixes `.md` and `.parquet`; returns the charts' files.

    Charts of an earlier write that are none of them any more are deleted last.

    Args:
        stand_ins: parts of the run that are stand-ins, which every chart says.
    """
    charts = chart_files(stem, panels)
    for path, panel in zip(charts, panels, strict=True):
        title = "\n".join([panel.title, *stand_in_notice(stand_ins, "{}")])
        commit_file(path, partial(draw_chart, replace(panel, title=title), _source(stem), path.name))
    commit_bytes(stem.with_suffix(".md"), text.encode())
    commit_bytes(stem.with_suffix(".parquet"), encode_table(table))
    for path in written_charts(stem):
        if path not in charts:
            path.unlink()
    return charts


def chart_files(stem: Path, panels: Sequence[Panel]) -> list[Path]:
    """The PNG file of each panel: `stem` with the panel's name, such as `stem-caption-accuracy.png`."""
    names = ["-".join(filter(None, [_source(stem), panel.name])) for panel in panels]
    return [stem.with_name(f"{name}.png") for name in names]


def written_charts(stem: Path) -> list[Path]:
    """The charts that `write_up` has written under this name; copies and others' files of similar names are none."""
    source = _source(stem)
    beside = sorted(stem.parent.glob("*.png")) if stem.parent.is_dir() else []
    return [path for path in beside if path.name.startswith(source) and _is_chart(path, source)]


def _source(stem: Path) -> str:
    return stem.with_suffix("").name


def _is_chart(path: Path, source: str) -> bool:
    """Whether a PNG file says that it is a chart of this result; earlier versions had one, which says less."""
    try:
        with Image.open(path) as image:
            said = image.info
    except (OSError, SyntaxError, ValueError):
        return False
    earlier = path.name == f"{source}.png" and str(said.get("Software")).startswith("Matplotlib")
    return earlier or (said.get("Source"), said.get("Title")) == (source, path.name)
