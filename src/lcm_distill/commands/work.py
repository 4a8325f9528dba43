"""Stages, run one after the other as a command asks for them."""

import logging
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lcm_distill.commands.errors import one_line_errors
from lcm_distill.commands.ownership import owning
from lcm_distill.commands.printing import announce, show_plan, show_result
from lcm_distill.commands.run_choice import Choice
from lcm_distill.commands.sweep import Varied, with_options
from lcm_distill.core.errors import UserError

if TYPE_CHECKING:
    from lcm_distill.config import Config
    from lcm_distill.pipeline.executors.choice import Name
    from lcm_distill.pipeline.executors.interface import Executor
    from lcm_distill.pipeline.run_folder import RunFolder
    from lcm_distill.pipeline.task import Progress
    from lcm_distill.stages.stage import Stage


@dataclass(frozen=True)
class How:
    """How stages run.

    Attributes:
        executor, workers, ray_address: where tasks run, as `choose_executor` takes them.
        sweep: configuration -> what options change for this command alone, which the run's configuration does not keep.
        options: of the stages themselves, such as `images_only`.
        command: its name where it is not that of the last stage.
    """

    as_json: bool = False
    dry_run: bool = False
    allow_random_weights: bool = False
    executor: "Name" = "auto"
    workers: int | None = None
    ray_address: str | None = None
    sweep: "Callable[[Config], Sequence[Varied]]" = lambda config: ()
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    command: str | None = None

    def open_executor(self, device: str) -> "Executor":
        """The executor that runs tasks on the configured device.

        Raises:
            UserError: the options contradict each other.
        """
        from lcm_distill.pipeline.executors.choice import choose_executor

        return choose_executor(self.executor, self.workers, self.ray_address, device=device)


def work(stages: "Sequence[Stage]", choice: Choice, how: How) -> None:
    """Run stages one after the other, or print what they would do; then print the last one's result.

    A plan of data that cannot be read is printed, and then ends as the command would.
    """
    with one_line_errors():
        if how.dry_run:
            config, folder = choice.load(begins=stages[0].begins or bool(choice.preset or choice.file))
            swept = _checked(stages, config, folder, how)
            refusal = next((error for stage in stages if (error := _refusal(stage, swept, folder))), None)
            show_plan(plan(stages, swept, folder, how), how.as_json, str(refusal) if refusal else None)
            if refusal:
                raise refusal
            return
        owned = [name for stage in stages for name in stage.owns]
        with owning(choice, how.command or stages[-1].name, owned, stages[0].begins) as (config, folder):
            swept = _checked(stages, config, folder, how)
            require(stages, swept, folder, how)
            if leads():
                announce(config)
            with folder.opened(config) if leads() else folder.joined(), logged(folder):
                for number, stage in enumerate(stages):
                    if number and leads():  # what was made has told more, such as captions
                        require(stages[number:], swept, folder, how)
                    _run(stage, swept, folder, how)
        if leads():
            show_result(stages[-1], config, folder, how.as_json)


def _refusal(stage: "Stage", config: "Config", folder: "RunFolder") -> UserError | None:
    """Why the data that a stage would read cannot be read."""
    try:
        stage.reads(config, folder)
    except UserError as error:
        return error


def _checked(stages: "Sequence[Stage]", config: "Config", folder: "RunFolder", how: How) -> "Config":
    """The configuration of this command, sweep included, which the run accepts."""
    swept = with_options(config, how.sweep(config))
    folder.continued = [stage.name for stage in stages]
    folder.refuse_other_settings(swept)
    _refuse_unused_sigmas(stages, config, folder)
    if not how.allow_random_weights:
        refuse_random_weights(config, stages)
    return swept


def _refuse_unused_sigmas(stages: "Sequence[Stage]", config: "Config", folder: "RunFolder") -> None:
    """Refuse a change of `evaluate.student_sigmas` without effect, where no student is to be trained."""
    from lcm_distill.config import load_file

    trains = any(stage.name == "distill" for stage in stages) and not folder.distill.exists()
    if trains or not folder.exists:
        return
    before = load_file(folder.config).evaluate.student_sigmas
    if config.evaluate.student_sigmas != before and folder.student.is_file():
        from lcm_distill.evaluation.samplings import refuse_unused_sigmas

        refuse_unused_sigmas(before, config, folder.student)


@contextmanager
def logged(folder: "RunFolder") -> Generator[None]:
    """A log file of this process in the run's `logs`, which also gets the traceback of an error that ends it."""
    from lcm_distill.core.logs import PACKAGE, start_logging, stop_logging
    from lcm_distill.pipeline.executors.ranks import launched_ranks

    logger, ranks = logging.getLogger(PACKAGE), launched_ranks()
    start_logging(folder.logs, f"rank-{ranks.rank}" if ranks else "main", logger.level or logging.INFO)
    logger.info("%s", " ".join(sys.argv))
    try:
        yield
    except BaseException:
        logger.exception("the command failed")
        raise
    finally:
        stop_logging()


def plan(stages: "Sequence[Stage]", config: "Config", folder: "RunFolder", how: How) -> dict[str, Any]:
    """Figures of each stage, and what it lacks."""
    from lcm_distill.stages.stage import missing

    plans: dict[str, Any] = {}
    for stage in stages:
        lacks = missing(stage, config, folder, list(plans), **how.options)
        plans[stage.name] = {**stage.plan(config, folder, **how.options), "missing": lacks}
    return plans


def require(stages: "Sequence[Stage]", config: "Config", folder: "RunFolder", how: How) -> None:
    """Refuse to begin where something is missing that none of the stages makes.

    Raises:
        UserError: it names the first of what is missing.
    """
    before: list[str] = []
    for stage in stages:
        for check in stage.checks(config, folder, before, **how.options):
            check()
        before.append(stage.name)


def refuse_random_weights(config: "Config", stages: "Sequence[Stage]") -> None:
    """No training on what random encoders made, unless it is asked for.

    Raises:
        UserError: a stage trains, and encoders.weights is random.
    """
    if config.encoders.weights == "random" and any(stage.ranks == "together" for stage in stages):
        raise UserError(
            "encoders.weights = 'random': what is trained on such a cache is worth nothing; set "
            "encoders.weights=pretrained, or give --allow-random-weights to measure speed"
        )


def leads() -> bool:
    """Whether this process reports: the first of the launched ranks, or one that no launcher started."""
    from lcm_distill.pipeline.executors.ranks import launched_ranks

    ranks = launched_ranks()
    return ranks is None or ranks.leads


def show_progress(reports: "Iterator[Progress]", silent: bool = False) -> None:
    """Exhaust the reports of a work in progress, showing each on standard error."""
    from lcm_distill.report.progress import show_progress as report
    from lcm_distill.report.terminal import screen

    if silent:
        deque(reports, maxlen=0)
    else:
        report(reports, screen)


def _run(stage: "Stage", config: "Config", folder: "RunFolder", how: How) -> None:
    if stage.ranks == "share":
        show_progress(stage.run(config, folder, how.open_executor(config.device), **how.options))
    elif leads() or stage.ranks == "together":
        show_progress(stage.run(config, folder), silent=not leads())
