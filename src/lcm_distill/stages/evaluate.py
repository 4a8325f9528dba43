"""Stage three: teacher and student draw the same captions from the same noise, and figures compare them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lcm_distill.config import Config
from lcm_distill.data.prompts import Prompt
from lcm_distill.pipeline.atomic import commit_file
from lcm_distill.pipeline.executors.serial import Serial
from lcm_distill.pipeline.executors.work import Executor
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.report.grid import labelled_grid
from lcm_distill.report.guidance import guidance_chart, guidance_text
from lcm_distill.stages.drawing import Drawing, checkpoint_sha256, draw
from lcm_distill.stages.extraction import extract
from lcm_distill.stages.measuring import HARNESS, IDENTITY, METRICS, figures, floor_figure, read_metrics
from lcm_distill.stages.networks import teacher_path
from lcm_distill.stages.prompts import find_prompts
from lcm_distill.stages.references import Reference, find_extractors, find_references
from lcm_distill.stages.samplings import samplings
from lcm_distill.stages.write_up import write_up

GRID_ROWS = 6

Rows = Sequence[Mapping[str, Any]]


def evaluate(
    config: Config, run: RunFolder, executor: Executor | None = None, pictures_only: bool = False
) -> Iterator[Progress]:
    """Draw what is not drawn yet, measure it, and write `metrics.parquet`, `grid.png` and `guidance.*`.

    What is missing for measuring is told before anything is drawn.

    Args:
        pictures_only: measure nothing, and need nothing for it.
    """
    executor = executor or Serial()
    require_models(config, run)
    prompts = find_prompts(config, run)
    drawings = [Drawing(config, run, way, prompts) for way in samplings(config)]
    extractors = find_extractors(config) if config.evaluate.protocols and not pictures_only else []
    references = (yield from find_references(config, run, prompts, extractors)) if executor.leads else []
    yield from draw("draw", drawings, executor)
    if extractors:
        yield from extract("measure", drawings, extractors, executor)
    if executor.leads:
        write_results(config, run, drawings, references, prompts)


def require_models(config: Config, run: RunFolder) -> None:
    """Hold the run to the checkpoints that are drawn with.

    Raises:
        UserError: one is not there.
    """
    if "student" in config.evaluate.models:
        run.require(run.student, f"run `lcm distill` into {run.root} first")
    if "teacher" in config.evaluate.models and config.evaluate.teacher:
        run.require(teacher_path(config), "set model.teacher to a checkpoint, or draw with evaluate.models=['student']")


def write_results(
    config: Config,
    run: RunFolder,
    drawings: Sequence[Drawing],
    references: Sequence[Reference],
    prompts: Sequence[Prompt],
) -> None:
    """Figures, the grid, and figures against the guidance scale, of finished drawings."""
    rows = [
        *(row for drawing in drawings for row in figures(drawing, references)),
        *(floor_figure(config, reference) for reference in references if reference.floor is not None),
    ]
    table = merged_metrics(run.metrics, rows)
    commit_file(run.metrics, lambda path: pq.write_table(table, path))
    first = [drawing for drawing in drawings if drawing.way.guidance == config.evaluate.guidance[0]]
    grid = side_by_side(first, prompts[:GRID_ROWS])
    commit_file(run.grid, lambda path: grid.save(path, format="PNG"))
    if len(config.evaluate.guidance) > 1 and rows:
        write_guidance(config, run, table.to_pylist(), rows)


def write_guidance(config: Config, run: RunFolder, known: Rows, measured: Rows) -> None:
    """`guidance.parquet`, `.md` and `.png`: what is known of today's checkpoints, measured as `measured` was."""
    harnesses = {tuple(row[name] for name in HARNESS) for row in measured}
    checkpoints = {checkpoint_sha256(path) for path in (run.student, teacher_path(config)) if path.is_file()}
    rows = [
        row
        for row in known
        if row["checkpoint_sha256"] in checkpoints and tuple(row[name] for name in HARNESS) in harnesses
    ]
    trained, notice = config.distill.guidance_range, config.stand_ins
    table = pa.Table.from_pylist(rows, schema=METRICS)
    write_up(run.guidance, table, guidance_text(rows, trained, notice), guidance_chart(rows, trained, notice))


def side_by_side(drawings: Sequence[Drawing], prompts: Sequence[Prompt]) -> Image.Image:
    """The first pictures of every drawing, one column each."""
    columns = [(drawing.way.title, drawing.pictures(len(prompts))) for drawing in drawings]
    return labelled_grid(columns, [prompt.caption for prompt in prompts], cell=max(128, columns[0][1].shape[1]))


def merged_metrics(path: Path, rows: Rows) -> pa.Table:
    """The rows, after those already at `path` that they do not replace; what an older version wrote is left behind."""
    kept = (read_metrics(path) if path.is_file() else None) or []
    merged = {tuple(str(row.get(name)) for name in IDENTITY): row for row in [*kept, *rows]}
    return pa.Table.from_pylist(list(merged.values()), schema=METRICS)
