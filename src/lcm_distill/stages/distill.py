"""Stage two: a few-step student from the teacher, on cached latents alone."""

from collections.abc import Collection, Iterator

from lcm_distill.config import Config
from lcm_distill.data.teacher_fit import require_fitting_teacher, teacher_remedy
from lcm_distill.models.networks import require_teacher
from lcm_distill.models.student_description import StudentDescription, require_sigmas
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.stages.stage import Check, Stage, needs_cache, needs_places
from lcm_distill.training.continuation import require_continuable
from lcm_distill.training.engine.parallel import full_state_dict
from lcm_distill.training.engine.world import init_world
from lcm_distill.training.loop import publish
from lcm_distill.training.lora import export_adapter
from lcm_distill.training.noise_levels import require_noise_levels
from lcm_distill.training.plan import plan_distillation
from lcm_distill.training.student import as_plain, continuation, prepare, published


def distill(config: Config, run: RunFolder, watch: int | None = None) -> Iterator[Progress]:
    """Train the student and publish it as the run's `student.safetensors`.

    Args:
        watch: number of steps between two rows of `distill/watch.png`; None leaves it as it is.
    """
    require_noise_levels(config)
    require_fitting_teacher(config, run)
    require_teacher(config.model, teacher_remedy(config, run))
    with init_world(config.device, config.engine) as world:
        trainer = prepare(config, run, world, watch)
        yield from trainer.run()
        weights = full_state_dict(published(config.distill, trainer.model, trainer.average))
        if config.distill.lora.rank and world.is_main:
            export_adapter(run.adapter, weights, config.distill.lora)
        publish(run.student, as_plain(config.distill, weights), StudentDescription.of(config).to_json(), world)


def checks(config: Config, run: RunFolder, before: Collection[str]) -> list[Check]:
    """What it needs: a cache, a fitting teacher, sigmas that a student can be published with, and a place for it."""
    return [
        *needs_places(run.student),
        *needs_cache(config, run, before),
        lambda: require_fitting_teacher(config, run),
        lambda: require_teacher(config.model, teacher_remedy(config, run)),
        lambda: require_noise_levels(config),
        lambda: require_sigmas(config.evaluate.student_sigmas, config.diffusion),
        lambda: require_continuable(run, run.distill, continuation(config)),
    ]


STAGE = Stage("distill", distill, plan_distillation, checks, "together")
