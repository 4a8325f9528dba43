"""Stage two: a few-step student from the teacher, on cached latents alone."""

from collections.abc import Iterator

from lcm_distill.config import Config
from lcm_distill.models.networks import teacher_path
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.training.engine.parallel import whole_weights
from lcm_distill.training.engine.world import join
from lcm_distill.training.loop import publish
from lcm_distill.training.lora import export_adapter
from lcm_distill.training.student import as_plain, describe_student, prepare, published


def distill(config: Config, run: RunFolder) -> Iterator[Progress]:
    """Train the student and publish it as the run's `student.safetensors`."""
    run.require(teacher_path(config), "set model.teacher to a checkpoint, or make one with `lcm pretrain`")
    with join(config) as world:
        training = prepare(config, run, world)
        yield from training.run()
        weights = whole_weights(published(config, training.model, training.average))
        if config.distill.lora.rank and world.leads:
            export_adapter(run.adapter, weights, config.distill.lora)
        publish(run.student, as_plain(config, weights), describe_student(config), world)
