"""Training of a teacher from the cache, or from several, by denoising."""

from collections.abc import Collection, Iterator

from lcm_distill.config import Config, PretrainConfig
from lcm_distill.core.errors import UserError
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.stages.stage import Check, Stage, needs_places
from lcm_distill.training.continuation import require_continuable
from lcm_distill.training.engine.parallel import full_state_dict
from lcm_distill.training.engine.world import init_world
from lcm_distill.training.loop import publish
from lcm_distill.training.noise_levels import require_log_means
from lcm_distill.training.plan import plan_pretraining
from lcm_distill.training.teacher import continuation, describe_teacher, prepare


def pretrain(config: Config, run: RunFolder) -> Iterator[Progress]:
    """Train a teacher and publish its average as the run's `teacher.safetensors`."""
    settings = config.pretrain
    if settings is None:
        raise UserError("pretrain is missing: this configuration has no [pretrain] section")
    _require_noise_levels(config, settings)
    with init_world(config.device, config.engine) as world:
        trainer = prepare(config, settings, run, world)
        yield from trainer.run()
        publish(run.teacher, full_state_dict(trainer.average), describe_teacher(config.model), world)


def checks(config: Config, run: RunFolder, before: Collection[str]) -> list[Check]:
    """What a teacher's training needs: its section of the configuration, and the place of its result."""
    settings = config.pretrain
    if settings is None:
        return [lambda: plan_pretraining(config, run)]
    return [
        *needs_places(run.teacher),
        lambda: _require_noise_levels(config, settings),
        lambda: require_continuable(run, run.pretrain, continuation(config, settings)),
    ]


def _require_noise_levels(config: Config, settings: PretrainConfig) -> None:
    means = {"pretrain.sigma_mean": settings.sigma_mean}
    require_log_means(means, config.diffusion.sigma_max, config.diffusion.sigma_min)


STAGE = Stage("pretrain", pretrain, plan_pretraining, checks, "together", begins=True)
