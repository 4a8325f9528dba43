# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
"""Validation during training: held-out captions, generated from the weights to publish, always from the same noise."""

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from lcm_distill.config import Config
from lcm_distill.core.errors import UserError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.evaluation.feature_extractors import ExtractorInfo, chosen_protocols
from lcm_distill.evaluation.features import extract_features
from lcm_distill.evaluation.image_grid import write_grid
from lcm_distill.evaluation.image_sets import ImageSet, generate_images
from lcm_distill.evaluation.metric_rows import metric_rows
from lcm_distill.evaluation.prompt_files import Prompt
from lcm_distill.evaluation.prompts import HELD_OUT, held_out_prompts
from lcm_distill.evaluation.reference_selection import find_references
from lcm_distill.evaluation.requirements import caption_refusal, find_extractors
from lcm_distill.evaluation.samplings import student_samplings, teacher_samplings
from lcm_distill.evaluation.table_schemas import METRICS
from lcm_distill.pipeline.atomic_writes import commit_bytes
from lcm_distill.pipeline.hashed_parquet import encode_table
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.training.engine.world import World
from lcm_distill.training.events import Events

log = logging.getLogger(__name__)


class Validation:
    """Generates images, measures them by the configured protocols that allow few images, and writes grid and metrics.

    A protocol that cannot measure one of the captions is left out, which is said before the first step.

    Each validation has a folder of its own, `step-` and the number of completed steps. VAE and text encoder are in
    memory only while images are generated.

    Args:
        run: has the held-out captions and images.
        folder: of all validations.
        publish: writes the current weights to a file; every rank must call it.
    """

    def __init__(
        self, config: Config, run: RunFolder, folder: Path, world: World, publish: Callable[[Path], None]
    ) -> None:
        assert config.engine.validate_every is not None
        self.every = config.engine.validate_every
        protocols = [protocol.name for protocol in chosen_protocols(config.evaluate) if protocol.allows_few]
        settings = {"images": config.engine.validation_images, "prompts": HELD_OUT, "protocols": protocols}
        self.config = config.changed([f"evaluate.{key}={value}" for key, value in settings.items()], "validation")
        self.run, self.folder, self.world, self.publish = run, folder, world, publish

    def __call__(self, step: int, events: Events | None) -> Iterator[Progress]:
        """Validate after `step` steps if it is due and not done yet; see `loop.Validate`.

        Rank 0 generates and measures, and the others wait for it.

        Raises:
            UserError: there are no held-out captions, or a protocol's network or reference is missing.
        """
        if events is not None:
            _ = self.prompts, self.extractors  # fail before training where they are missing
        place = RunFolder(self.folder / f"step-{step:07d}", self.run)
        if not self.due(step, place):
            return
        self.publish(self.checkpoint(place))
        if events is not None:
            yield from self._validate(place, step, events)
        self.world.barrier()

    def due(self, step: int, place: RunFolder) -> bool:
        """Whether to validate after `step` steps; the same on every rank."""
        return step > 0 and step % self.every == 0 and not place.metrics.is_file()

    def checkpoint(self, place: RunFolder) -> Path:
        """Where the weights of one validation go."""
        raise NotImplementedError

    def image_sets(self, place: RunFolder) -> list[ImageSet]:
        """The image sets of one validation, whose weights are published."""
        raise NotImplementedError

    def _validate(self, place: RunFolder, step: int, events: Events) -> Iterator[Progress]:
        shared, image_sets = RunFolder(self.folder, self.run), self.image_sets(place)
        references = yield from find_references(self.config, shared, self.prompts, self.extractors)
        yield from generate_images("validate", image_sets)
        yield from extract_features("validate", image_sets, self.extractors)
        rows = [row for image_set in image_sets for row in metric_rows(image_set, references)]
        grid = write_grid(place.grid, [(image_set, "") for image_set in image_sets], self.prompts)
        commit_bytes(place.metrics, encode_table(pa.Table.from_pylist(rows, schema=METRICS)))
        self.checkpoint(place).unlink()
        shutil.rmtree(place.evaluate)
        values = {
            f"validation/{row['metric']}/{row['model']}-{row['sampler']}-{row['steps']}": row["value"] for row in rows
        }
        events.add_validation(step, values, np.asarray(grid))

    @cached_property
    def prompts(self) -> list[Prompt]:
        """The captions of every validation."""
        return held_out_prompts(Cache.local(self.config, self.run), self.config.evaluate.images)

    @cached_property
    def extractors(self) -> list[ExtractorInfo]:
        """The networks of the protocols that can measure these captions; warns of the others."""
        protocols = chosen_protocols(self.config.evaluate)
        refusals = [(protocol.name, caption_refusal(protocol, self.prompts)) for protocol in protocols]
        for refusal in filter(None, (refusal for _, refusal in refusals)):
            line = f"validation: {refusal}: validations have a grid of images, and no figures of it"
            log.warning(line)
            warnings.warn(line, stacklevel=2)
        able = [name for name, refusal in refusals if not refusal]
        return find_extractors(self.config.evaluate.model_copy(update={"protocols": able})) if able else []


class StudentValidation(Validation):
    """The student at all configured numbers of steps, beside the first of the teacher's samplers if there is one.

    The teacher's images are generated once.
    """

    def __init__(self, config: Config, run: RunFolder, world: World, publish: Callable[[Path], None]) -> None:
        super().__init__(config, run, run.distill / "validation", world, publish)

    def checkpoint(self, place: RunFolder) -> Path:
        """See `Validation`."""
        return place.student

    def image_sets(self, place: RunFolder) -> list[ImageSet]:
        """See `Validation`."""
        teacher, config = RunFolder(self.folder, self.run), self.config
        samplings = teacher_samplings(config.evaluate, config.diffusion)[:1]
        return [
            *(ImageSet(config, teacher, sampling, self.prompts) for sampling in samplings),
            *(ImageSet(config, place, sampling, self.prompts) for sampling in student_samplings(config, place.student)),
        ]


class TeacherValidation(Validation):
    """A teacher in training, by the first sampler of `evaluate.teacher`.

    Raises:
        UserError: `evaluate.teacher` names no sampler.
    """

    def __init__(self, config: Config, run: RunFolder, world: World, publish: Callable[[Path], None]) -> None:
        if not config.evaluate.teacher:
            raise UserError(
                "engine.validate_every needs a sampler, and evaluate.teacher is empty: add one, such as ['heun', 18], "
                "or leave engine.validate_every unset"
            )
        super().__init__(config, run, run.pretrain / "validation", world, publish)

    def checkpoint(self, place: RunFolder) -> Path:
        """See `Validation`."""
        return place.teacher

    def image_sets(self, place: RunFolder) -> list[ImageSet]:
        """See `Validation`."""
        model = self.config.model.model_copy(update={"teacher": str(self.checkpoint(place))})
        config = self.config.model_copy(update={"model": model})
        samplings = teacher_samplings(config.evaluate, config.diffusion)[:1]
        return [ImageSet(config, place, sampling, self.prompts) for sampling in samplings]
