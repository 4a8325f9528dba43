"""Stage three: teacher and student draw the same captions from the same noise, and figures compare them."""

from collections.abc import Iterator

from lcm_distill.config import Config
from lcm_distill.evaluation.features import extract
from lcm_distill.evaluation.image_sets import ImageSet, draw
from lcm_distill.evaluation.prompts import find_prompts
from lcm_distill.evaluation.references import find_extractors, find_references
from lcm_distill.evaluation.results import write_results
from lcm_distill.evaluation.samplings import samplings
from lcm_distill.models.networks import teacher_path
from lcm_distill.pipeline.executors.serial import Serial
from lcm_distill.pipeline.executors.work import Executor
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress


def evaluate(
    config: Config, run: RunFolder, executor: Executor | None = None, images_only: bool = False
) -> Iterator[Progress]:
    """Draw what is not drawn yet, measure it, and write `metrics.parquet`, `grid.png` and `guidance.*`.

    What is missing for measuring is told before anything is drawn.

    Args:
        images_only: measure nothing, and need nothing for it.
    """
    executor = executor or Serial()
    require_models(config, run)
    prompts = find_prompts(config, run)
    image_sets = [ImageSet(config, run, sampling, prompts) for sampling in samplings(config)]
    extractors = find_extractors(config) if config.evaluate.protocols and not images_only else []
    references = (yield from find_references(config, run, prompts, extractors)) if executor.leads else []
    yield from draw("draw", image_sets, executor)
    if extractors:
        yield from extract("measure", image_sets, extractors, executor)
    if executor.leads:
        write_results(config, run, image_sets, references, prompts)


def require_models(config: Config, run: RunFolder) -> None:
    """Hold the run to the checkpoints that are drawn with.

    Raises:
        UserError: one is not there.
    """
    if "student" in config.evaluate.models:
        run.require(run.student, f"run `lcm distill` into {run.root} first")
    if "teacher" in config.evaluate.models and config.evaluate.teacher:
        run.require(teacher_path(config), "set model.teacher to a checkpoint, or draw with evaluate.models=['student']")
