"""Stage three: teacher and student generate images of the same captions and noise, and figures compare them."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from lcm_distill.config import Config, EvaluateConfig
from lcm_distill.core.errors import UserError
from lcm_distill.data.teacher_fit import teacher_remedy, trained_student
from lcm_distill.evaluation.feature_extractors import chosen_protocols
from lcm_distill.evaluation.features import extract_features, withdraw_damaged_files
from lcm_distill.evaluation.guidance_response_measurement import ResponseComparison, measures_response, response_rows
from lcm_distill.evaluation.image_grid import shown_places
from lcm_distill.evaluation.image_sets import ImageSet, generate_images, image_format
from lcm_distill.evaluation.plan import plan_evaluation
from lcm_distill.evaluation.prompts import HELD_OUT, find_prompts, repeated
from lcm_distill.evaluation.reference_selection import find_references
from lcm_distill.evaluation.requirements import (
    find_extractors,
    require_captions,
    require_extractor,
    require_reference,
    require_student,
)
from lcm_distill.evaluation.results import write_results
from lcm_distill.evaluation.samplings import samplings, student_sampling
from lcm_distill.evaluation.table_schemas import read_metrics
from lcm_distill.models.networks import require_teacher
from lcm_distill.pipeline.executors.interface import Executor
from lcm_distill.pipeline.executors.serial import Serial
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.report.write_up import SUFFIXES
from lcm_distill.stages.stage import Check, Stage, needs_places


def evaluate(
    config: Config, run: RunFolder, executor: Executor | None = None, images_only: bool = False
) -> Iterator[Progress]:
    """Generate and measure what is missing, and write `metrics.parquet`, `grid.png` and `guidance.*`.

    Args:
        images_only: measure nothing; neither weights of feature networks nor references are needed then.

    Raises:
        UserError: something is missing that generating or measuring needs; nothing was generated.
    """
    executor = executor or Serial()
    for check in (*_needs_models(config, run, before=()), *_needs_results(run)):
        check()
    prompts = find_prompts(config, run)
    image_sets = [ImageSet(config, run, sampling, prompts) for sampling in samplings(config, run.student)]
    chosen = chosen_protocols(config.evaluate)
    extractors = find_extractors(config.evaluate) if chosen and not images_only else []
    references = (yield from find_references(config, run, prompts, extractors)) if executor.leads else []
    withdraw_damaged_files(image_sets, extractors, shown_places(prompts))
    counts = {"repeated_captions": again} if (again := repeated(prompts)) else {}
    for report in generate_images("generate", image_sets, executor):
        yield replace(report, counts={**counts, **report.counts})
    if extractors:
        yield from extract_features("measure", image_sets, extractors, executor)
    if not executor.leads:
        return
    responses: list[dict[str, Any]] = []
    if extractors and measures_response(config.evaluate):
        highest = student_sampling(config, run.student).diffusion.sigma_max
        responses = yield from response_rows(ResponseComparison(config, prompts, highest), config, run)
    write_results(config, run, image_sets, references, prompts, responses)


def checks(config: Config, run: RunFolder, before: Collection[str], images_only: bool = False) -> list[Check]:
    """What an evaluation needs: prompts, checkpoints, places for its results, and what measuring needs.

    Files and prompts come first, as sizes of checkpoints are checked by what takes seconds to import.
    """
    return [
        *([partial(trained_student, config, run)] if _needs_student(config, before) else []),
        *_needs_prompts(config, run, before, images_only),
        *_needs_models(config, run, before),
        *_needs_results(run),
        lambda: image_format(config.evaluate),
        *(() if images_only else needs_measuring(config.evaluate)),
    ]


def needs_measuring(settings: EvaluateConfig) -> list[Check]:
    """What measuring needs: known protocols, their references, feature extractors and enough images."""
    try:
        names = [protocol.name for protocol in chosen_protocols(settings)]
    except UserError:
        return [partial(chosen_protocols, settings)]
    return [partial(check, settings, name) for name in names for check in (require_reference, require_extractor)]


def _needs_models(config: Config, run: RunFolder, before: Collection[str]) -> list[Check]:
    """Something to generate with: samplings, and the checkpoints of the configured models."""
    settings = config.evaluate
    needed: list[Check] = [partial(_require_samplings, config)]
    if _needs_student(config, before):
        needed.append(partial(require_student, config, run))
    steps = {"teacher": settings.teacher, "untrained": settings.student_steps}
    if any(steps.get(model) for model in settings.models):
        remedy = f"{teacher_remedy(config, run)}, or generate with evaluate.models=['student']"
        needed.append(partial(require_teacher, config.model, remedy))
    return needed


def _needs_student(config: Config, before: Collection[str]) -> bool:
    """Whether images of a student are to be generated that no stage before makes."""
    settings = config.evaluate
    return "student" in settings.models and bool(settings.student_steps) and "distill" not in before


def _needs_results(run: RunFolder) -> list[Check]:
    """Places for the results, and known figures that new ones can be added to."""
    guidance = [run.guidance.with_suffix(suffix) for suffix in SUFFIXES]
    charts = run.root.glob(f"{run.guidance.name}-*.png")

    def check() -> None:
        if run.metrics.is_file():
            read_metrics(run.metrics)

    return [*needs_places(run.metrics, run.grid, *guidance, *charts), check]


def _require_samplings(config: Config) -> None:
    settings = config.evaluate
    if not samplings(config):
        raise UserError(
            f"evaluate.models = {settings.models}, evaluate.teacher = {settings.teacher} and evaluate.student_steps = "
            f"{settings.student_steps} leave nothing to generate: name a teacher's solver and steps, or student steps"
        )


def _needs_prompts(config: Config, run: RunFolder, before: Collection[str], images_only: bool) -> list[Check]:
    """Captions that every protocol can measure; held-out ones are known once `precompute` has run."""
    if config.evaluate.prompts == HELD_OUT and "precompute" in before:
        return []

    def check() -> None:
        prompts = find_prompts(config, run)
        for protocol in () if images_only else chosen_protocols(config.evaluate):
            require_captions(protocol, prompts)

    return [check]


STAGE = Stage("evaluate", evaluate, plan_evaluation, checks, "share", result="FROM metrics")
