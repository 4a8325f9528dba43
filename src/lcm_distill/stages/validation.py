"""A look at the student in training: held-out captions drawn as it would be published, the noise always the same."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.config import Config
from lcm_distill.pipeline.atomic import commit_file
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.report.grid import labelled_grid
from lcm_distill.stages.drawing import Drawing, Prompt, draw, held_out_prompts, student_samplings, teacher_samplings
from lcm_distill.stages.engine.events import Events
from lcm_distill.stages.engine.world import World
from lcm_distill.stages.measuring import FRECHET, METRICS, Reference, figures, real_reference

GRID_ROWS = 6


class Validation:
    """Draws, measures where a feature network is configured, and leaves a folder a validation.

    The teacher's pictures are drawn once. VAE and text encoder are in memory while pictures are drawn, and only then.

    Args:
        publish: commits the student of a folder, to be drawn with; every rank must call.
    """

    def __init__(self, config: Config, run: RunFolder, world: World, publish: Callable[[RunFolder], None]) -> None:
        assert config.engine.validate_every is not None
        self.every = config.engine.validate_every
        self.config = config.changed([f"evaluate.images={config.engine.validation_images}"], "validation")
        self.run, self.world, self.publish = run, world, publish
        self.folder = run.distill / "validation"

    def __call__(self, step: int, events: Events | None) -> Iterator[Progress]:
        """Validate after `step` steps, if it is time to and not done yet; the first rank draws, the others wait."""
        place = RunFolder(self.folder / f"step-{step:07d}", self.run)
        if step == 0 or step % self.every or place.metrics.is_file():
            return
        self.publish(place)
        if events is not None:
            yield from self._draw(place, step, events)
        self.world.wait()

    def _draw(self, place: RunFolder, step: int, events: Events) -> Iterator[Progress]:
        teacher = RunFolder(self.folder, self.run)
        drawings = [
            *(Drawing(self.config, teacher, way, self.prompts) for way in teacher_samplings(self.config)[:1]),
            *(Drawing(self.config, place, way, self.prompts) for way in student_samplings(self.config)),
        ]
        yield from draw("validate", drawings)
        rows = [row for drawing in drawings for row in self._figures(drawing)]
        shown = self.prompts[:GRID_ROWS]
        columns = [(drawing.way.title, drawing.pictures(len(shown))) for drawing in drawings]
        grid = labelled_grid(columns, [prompt.caption for prompt in shown], cell=max(128, columns[0][1].shape[1]))
        commit_file(place.grid, lambda path: grid.save(path, format="PNG"))
        commit_file(place.metrics, lambda path: pq.write_table(pa.Table.from_pylist(rows, schema=METRICS), path))
        place.student.unlink()
        shutil.rmtree(place.evaluate)
        distances = {
            f"validation/{row['model']}-{row['sampler']}-{row['steps']}": row["value"]
            for row in rows
            if row["metric"] == FRECHET
        }
        events.validated(step, distances, np.asarray(grid))

    def _figures(self, drawing: Drawing) -> list[Mapping[str, Any]]:
        return [*figures(drawing, self.reference)] if self.config.evaluate.features else []

    @cached_property
    def prompts(self) -> list[Prompt]:
        """The captions that every validation draws."""
        return held_out_prompts(self.config, self.run)

    @cached_property
    def reference(self) -> Reference:
        """The real pictures they belong to."""
        return real_reference(self.config, self.run, self.prompts)
