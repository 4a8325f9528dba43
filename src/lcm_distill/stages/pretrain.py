"""Training of a teacher from the cache, or from several, by denoising."""

from collections.abc import Iterator

from lcm_distill.config import Config
from lcm_distill.core.errors import UserError
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.training.engine.parallel import whole_weights
from lcm_distill.training.engine.world import join
from lcm_distill.training.loop import publish
from lcm_distill.training.teacher import prepare


def pretrain(config: Config, run: RunFolder) -> Iterator[Progress]:
    """Train a teacher and publish its average as the run's `teacher.safetensors`."""
    settings = config.pretrain
    if settings is None:
        raise UserError("pretrain is missing: this configuration has no [pretrain] section")
    with join(config) as world:
        training = prepare(config, settings, run, world)
        yield from training.run()
        description = {"role": "teacher", "model": config.model.model_dump(exclude={"teacher"})}
        publish(run.teacher, whole_weights(training.average), description, world)
