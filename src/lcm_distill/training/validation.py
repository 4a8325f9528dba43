"""A look at the student in training: held-out captions drawn as it would be published, the noise always the same."""

import shutil
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.config import Config
from lcm_distill.evaluation.features import ExtractorInfo, extract
from lcm_distill.evaluation.grid import GRID_ROWS, side_by_side
from lcm_distill.evaluation.image_sets import ImageSet, draw
from lcm_distill.evaluation.prompt_files import Prompt
from lcm_distill.evaluation.prompts import HELD_OUT, held_out_prompts
from lcm_distill.evaluation.references import allows_few, find_extractors, find_references
from lcm_distill.evaluation.results import METRICS, figures
from lcm_distill.evaluation.samplings import student_samplings, teacher_samplings
from lcm_distill.pipeline.atomic import commit_file
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.training.engine.world import World
from lcm_distill.training.events import Events


class Validation:
    """Draws, measures by those configured protocols that few images will do for, and leaves a folder a validation.

    The teacher's images are drawn once. VAE and text encoder are in memory while images are drawn, and only then.

    Args:
        publish: commits the student of a folder, to be drawn with; every rank must call.
    """

    def __init__(self, config: Config, run: RunFolder, world: World, publish: Callable[[RunFolder], None]) -> None:
        assert config.engine.validate_every is not None
        self.every = config.engine.validate_every
        protocols = [name for name in config.evaluate.protocols if allows_few(name)]
        settings = {"images": config.engine.validation_images, "prompts": HELD_OUT, "protocols": protocols}
        self.config = config.changed([f"evaluate.{key}={value}" for key, value in settings.items()], "validation")
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
        image_sets = [
            *(
                ImageSet(self.config, teacher, sampling, self.prompts)
                for sampling in teacher_samplings(self.config)[:1]
            ),
            *(ImageSet(self.config, place, sampling, self.prompts) for sampling in student_samplings(self.config)),
        ]
        references = yield from find_references(self.config, teacher, self.prompts, self.extractors)
        yield from draw("validate", image_sets)
        yield from extract("validate", image_sets, self.extractors)
        rows = [row for image_set in image_sets for row in figures(image_set, references)]
        grid = side_by_side(image_sets, self.prompts[:GRID_ROWS])
        commit_file(place.grid, lambda path: grid.save(path, format="PNG"))
        commit_file(place.metrics, lambda path: pq.write_table(pa.Table.from_pylist(rows, schema=METRICS), path))
        place.student.unlink()
        shutil.rmtree(place.evaluate)
        values = {
            f"validation/{row['metric']}/{row['model']}-{row['sampler']}-{row['steps']}": row["value"] for row in rows
        }
        events.validated(step, values, np.asarray(grid))

    @cached_property
    def prompts(self) -> list[Prompt]:
        """The captions that every validation draws."""
        return held_out_prompts(self.config, self.run)

    @cached_property
    def extractors(self) -> list[ExtractorInfo]:
        """The networks that measure."""
        return find_extractors(self.config) if self.config.evaluate.protocols else []
