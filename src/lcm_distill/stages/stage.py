"""What every stage is to the commands: how it runs, what it needs, what it would do, and what it results in."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lcm_distill.config import Config
from lcm_distill.core.errors import UserError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress

Check = Callable[[], object]
"""Raises `UserError` where something is missing."""


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: of its command and of its section in `lcm status`.
        run: (config, run) -> progress reports. A stage that shares its work also takes an executor.
        plan: (config, run) -> figures of its work, without doing it.
        checks: (config, run, names of the stages that the same command runs before) -> what must be there.
        ranks: where several ranks are launched: `share` the tasks, train `together`, or the `first` one alone.
        result: query over the run's views; None for the stage's part of `lcm status`.
        begins: whether it can begin a run; others need a run folder.
        writes_of: names of further stages whose results it writes.
        reads: (config, run) -> check that what its plan counts can be read; a dry run that has printed it ends so.
    """

    name: str
    run: Callable[..., Iterator[Progress]]
    plan: Callable[..., dict[str, Any]]
    checks: Callable[..., Sequence[Check]]
    ranks: Literal["share", "together", "first"]
    result: str | None = None
    begins: bool = False
    writes_of: Sequence[str] = ()
    reads: Callable[[Config, RunFolder], object] = lambda config, run: None

    @property
    def owns(self) -> list[str]:
        """Names of the stages that have no other owner while it runs."""
        return [self.name, *self.writes_of]


def missing(stage: Stage, config: Config, run: RunFolder, before: Collection[str], **options: Any) -> list[str]:
    """What a stage lacks, a line each.

    Args:
        before: names of the stages that the same command runs before.
        options: of the stage's `checks`, by name, such as `images_only`.
    """
    return failures(stage.checks(config, run, before, **options))


def failures(checks: Sequence[Check]) -> list[str]:
    """The messages of the checks that fail, each once: several checks may need the same thing."""
    return list(dict.fromkeys(line for check in checks if (line := _failure(check)) is not None))


def needs_cache(config: Config, run: RunFolder, before: Collection[str]) -> list[Check]:
    """That a cache was begun, unless `precompute` comes before."""
    return [] if "precompute" in before else [Cache.open(config, run).require_begun]


def needs_places(*results: Path) -> list[Check]:
    """That files may be written where results go, before the work whose results they are."""

    def check(path: Path) -> None:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is where a result goes, and no regular file: move it away")

    return [partial(check, path) for path in results]


def _failure(check: Check) -> str | None:
    try:
        check()
    except UserError as error:
        return str(error)
    return None
