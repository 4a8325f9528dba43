"""Which teacher fits the cache of a configuration: said where one is made, needed where a student is trained."""

from pathlib import Path
from typing import Any, cast

from lcm_distill import assets
from lcm_distill.config import Config, EncodersConfig, ModelConfig
from lcm_distill.core.errors import UserError
from lcm_distill.data.sources.registry import source_type
from lcm_distill.models.checkpoint_description import read_description
from lcm_distill.pipeline.run_folder import RunFolder


def fitting_teacher(config: Config, run: RunFolder) -> str:
    """Whether the configured teacher fits data set, encoders and resolution, and which one does if not: one line.

    What a teacher was trained on is known of those that ship, and of the one that the run trained itself.
    """
    name, path = config.model.teacher, assets.teacher(config.model.teacher)
    if stranger := strange_teacher(config, run):
        return stranger
    if not path.exists():
        return f"{path} is missing: {teacher_remedy(config, run)}"
    if flaw := _flaw(config.model, path):
        return f"{name} {flaw}: {teacher_remedy(config, run)}"
    if name in assets.TEACHERS:
        return f"{name}, which ships and was trained on such images"
    if path.resolve() == run.teacher.resolve():
        return f"{path}, which this run has trained"
    return f"{path}, if it was trained on {_inputs(config.encoders, config.resolution)}"


def strange_teacher(config: Config, run: RunFolder) -> str | None:
    """What is wrong with a teacher that ships, where it has been trained on other images or encoders: one line."""
    name, encoders = config.model.teacher, config.encoders
    if name not in assets.TEACHERS:
        return None
    if not source_type(config.data).generated:
        return f"{name}, which ships, knows nothing of these images: {teacher_remedy(config, run)}"
    if (encoders.vae, encoders.text, encoders.weights) != ("shapes", "shapes", "pretrained"):
        return f"{name}, which ships, was trained with other encoders: {teacher_remedy(config, run)}"
    return None


def require_fitting_teacher(config: Config, run: RunFolder) -> None:
    """Check that a student is not trained from a teacher that ships and knows nothing of the images it is given.

    Random encoders make no images that any teacher could know: they are for measuring speed alone.

    Raises:
        UserError: it would be.
    """
    if config.encoders.weights != "random" and (stranger := strange_teacher(config, run)):
        file = assets.teacher(config.model.teacher)
        raise UserError(f"teacher {stranger}; where it does know them, set model.teacher={file}")


def trained_student(config: Config, run: RunFolder) -> Path:
    """The file of a run's student, or of the one that it was given.

    Raises:
        UserError: there is none.
    """
    return run.require_student(student_remedy(config, run))


def student_remedy(config: Config, run: RunFolder) -> str:
    """How to come by the student of a run that has none: the commands, a teacher's first where none fits."""
    if not strange_teacher(config, run):
        return f"run `lcm distill --run {run.root}` first"
    distilled = f"`lcm distill --run {run.root} --set model.teacher={run.teacher}`"
    if run.teacher.is_file():
        return f"run {distilled} first"
    if config.pretrain:
        return f"run `lcm pretrain --run {run.root}` and {distilled} first"
    return f"{teacher_remedy(config, run)}, and run `lcm distill --run {run.root}` first"


def teacher_remedy(config: Config, run: RunFolder) -> str:
    """How to come by a teacher that fits where the configured one does not: keys, and the command that trains one."""
    if run.teacher.is_file() and config.model.teacher != str(run.teacher):
        return f"set model.teacher={run.teacher}, which this run has trained"
    owner = RunFolder(config.cache.run) if config.cache.run else None
    if owner and owner.teacher.is_file() and config.model.teacher != str(owner.teacher):
        return f"set model.teacher={owner.teacher}, which was trained on this cache"
    cached = f" --cache {owner.root}" if owner and not run.exists else ""
    pretrained = f"run `lcm pretrain --run {run.root}{cached}` and set model.teacher={run.teacher}, or "
    trained = pretrained if config.pretrain else ""
    inputs = _inputs(config.encoders, config.resolution)
    return f"{trained}set model.teacher to a checkpoint that was trained on {inputs}"


def _flaw(model: ModelConfig, path: Path) -> str | None:
    """How the network that a checkpoint describes differs from the configured one; None if nothing shows it."""
    try:
        described: Any = read_description(path).get("model")
    except UserError:
        return "cannot be read"
    known = cast(dict[str, Any], described) if isinstance(described, dict) else {}
    own = model.model_dump()
    found = [f"{key} {known[key]}, not {own[key]}" for key in own if key in known and known[key] != own[key]]
    return f"has {', '.join(found)}" if found else None


def _inputs(encoders: EncodersConfig, resolution: int) -> str:
    return f"latents of {encoders.vae} at {resolution} px and captions as {encoders.text} embeds them"
