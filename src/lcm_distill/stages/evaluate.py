"""Stage three: teacher and student draw held-out captions, and figures compare them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lcm_distill.config import Config
from lcm_distill.pipeline.atomic import commit_file
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.report.grid import labelled_grid
from lcm_distill.stages.drawing import Drawing, Prompt, draw, held_out_prompts, samplings
from lcm_distill.stages.guidance import sweep_guidance
from lcm_distill.stages.measuring import METRICS, figures, floor_figure, real_reference

GRID_ROWS = 6


def evaluate(config: Config, run: RunFolder) -> Iterator[Progress]:
    """Draw what is not drawn yet, measure it, and write `metrics.parquet`, without rows if there is no feature network.

    A sweep over guidance scales comes on top where one is configured.
    """
    run.require(run.student, f"run `lcm distill` into {run.root} first")
    prompts = held_out_prompts(config, run)
    drawings = [Drawing(config, run, way, prompts) for way in samplings(config)]
    yield from draw("draw", drawings)
    table = merged_metrics(run.metrics, measure(config, run, drawings, prompts) if config.evaluate.features else [])
    commit_file(run.metrics, lambda path: pq.write_table(table, path))
    grid = side_by_side(drawings, prompts[:GRID_ROWS])
    commit_file(run.grid, lambda path: grid.save(path, format="PNG"))
    if config.evaluate.guidance_sweep:
        yield from sweep_guidance(config, run, prompts)


def measure(
    config: Config, run: RunFolder, drawings: Sequence[Drawing], prompts: Sequence[Prompt]
) -> list[dict[str, Any]]:
    """Rows of `metrics.parquet` for finished drawings."""
    reference = real_reference(config, run, prompts)
    rows = [row for drawing in drawings for row in figures(drawing, reference)]
    return [*rows, floor_figure(config, reference)]


def side_by_side(drawings: Sequence[Drawing], prompts: Sequence[Prompt]) -> Image.Image:
    """The first pictures of every drawing, one column each."""
    columns = [(drawing.way.title, drawing.pictures(len(prompts))) for drawing in drawings]
    return labelled_grid(columns, [prompt.caption for prompt in prompts], cell=max(128, columns[0][1].shape[1]))


def merged_metrics(path: Path, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows, and those already at `path` that they do not replace."""
    key = ("model", "sampler", "steps", "guidance", "metric", "images", "checkpoint_sha256")
    kept = pq.read_table(path).to_pylist() if path.is_file() else []
    merged = {tuple(row.get(name) for name in key): row for row in [*kept, *rows]}
    return pa.Table.from_pylist(list(merged.values()), schema=METRICS)
