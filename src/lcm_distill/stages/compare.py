# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportUnknownLambdaType=false
"""Figures of several runs in one table, students beside their teachers."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lcm_distill.config import Config, load_file
from lcm_distill.core.errors import UserError
from lcm_distill.evaluation.table_schemas import IDENTITY, METRICS, read_metrics
from lcm_distill.metrics.figure_styles import FIGURE_STYLES
from lcm_distill.pipeline.atomic_writes import remove_orphans_of, require_file_or_nothing, require_writable
from lcm_distill.pipeline.run_folder import RunFolder, require_foreign
from lcm_distill.pipeline.run_place import no_run
from lcm_distill.report.comparison import comparison_panels, comparison_text
from lcm_distill.report.write_up import SUFFIXES, chart_files, write_up

COMPARISON = pa.schema([("run", pa.string()), *METRICS])
"""`metrics.parquet`'s columns, after the run whose student a figure is of; teachers and real images have none."""

ORDER = ("teacher", "untrained", "student", "real")


def compare(runs: Sequence[Path], out: Path) -> list[dict[str, Any]]:
    """Write `out` with the suffixes `.parquet` and `.md`, and its charts; returns its rows, teachers first.

    A teacher that several runs measured under the same circumstances has its rows once. Warns of runs without figures
    where others have some.

    Raises:
        UserError: a run was not evaluated, or by an older version; no run has figures; a run is named twice; or `out`
            has no name.
        OSError: one of the results is a folder, or cannot be written.
    """
    results = _results(out)
    if len(set(map(Path.resolve, runs))) < len(runs):
        raise UserError("a run is named twice: name each once")
    found, without = dict[tuple[str, ...], dict[str, Any]](), list[RunFolder]()
    for run in runs:
        if not (figures := _figures(RunFolder(run))):
            without.append(RunFolder(run))
        for row in figures:
            own = {"run": str(run) if row["model"] == "student" else None, **row}
            found.setdefault(tuple(str(own.get(name)) for name in ("run", *IDENTITY)), own)
    rows = sorted(found.values(), key=lambda row: ORDER.index(row["model"]))
    if not rows:
        raise UserError(f"{runs[0]} holds no figure: set evaluate.protocols and run `lcm evaluate --run {runs[0]}`")
    bare = [_without_figures(run, _config(run)) for run in without]
    for sentence in bare:
        warnings.warn(sentence, stacklevel=2)
    configs = [_config(RunFolder(run)) for run in runs]
    notice = list(dict.fromkeys(name for config in configs for name in config.stand_ins))
    panels = comparison_panels(rows, [config.evaluate.guidance[0] for config in configs], FIGURE_STYLES)
    charts = chart_files(out, panels)
    for path in charts:
        require_file_or_nothing(path)
    remove_orphans_of(*results, *charts)
    table = pa.Table.from_pylist(rows, schema=COMPARISON)
    write_up(out, table, comparison_text(rows, notice, bare, FIGURE_STYLES), panels, notice)
    return rows


def _results(out: Path) -> list[Path]:
    """The files to write, each of which can take its place."""
    if out.name in ("", ".."):
        raise UserError(f"--out {out} is a folder: add a name for the results, such as {out / 'compare'}")
    results = [out.with_suffix(suffix) for suffix in SUFFIXES]
    for path in results:
        require_foreign(path)
        require_file_or_nothing(path)
        require_writable(path)
    return results


def _figures(run: RunFolder) -> list[dict[str, Any]]:
    if not run.exists:
        raise no_run(run.root, "give folders of runs")
    run.require(run.metrics, f"run `lcm evaluate --run {run.root}` first")
    rows = read_metrics(run.metrics)
    if rows is None:
        raise UserError(f"{run.metrics} is of an older version: run `lcm evaluate --run {run.root}` again")
    return rows


def _without_figures(run: RunFolder, config: Config) -> str:
    """A sentence on a run without figures, and on what makes them."""
    from lcm_distill.evaluation.requirements import unmeasured  # loads PyTorch, which nothing else here needs

    command = f"`lcm evaluate --run {run.root}`"
    if why := unmeasured(config, run):
        return f"{run.root} has no figures: {why}: set evaluate.protocols to others for {command}"
    return f"{run.root} has no figures: {command} makes them"


def _config(run: RunFolder) -> Config:
    run.require(run.config, "give the folder of a run")
    return load_file(run.config)
