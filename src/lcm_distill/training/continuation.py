"""A finished training continued: whether the steps that it has done are the first ones of a longer training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lcm_distill.config import DistillConfig, OptimiserConfig, load_file
from lcm_distill.core.errors import UserError
from lcm_distill.core.words import counted
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.training.checkpoints import Checkpoints
from lcm_distill.training.optimiser import learning_rate

AnyTraining = TypeVar("AnyTraining", bound=OptimiserConfig)
Decided = Callable[[Any, int], Mapping[str, float]]
"""(settings, step) -> what the total number of steps decides in a step, each after what makes it depend on nothing."""


def with_steps(settings: AnyTraining, steps: int) -> AnyTraining:
    """The settings of a training of another number of steps."""
    return settings.model_copy(update={"steps": steps})


def decided(settings: OptimiserConfig, step: int) -> dict[str, float]:
    """See `Decided`: the learning rate, which falls at the end."""
    return {"decay_fraction=0": learning_rate(settings, step)}


def decided_in_distillation(settings: DistillConfig, step: int) -> dict[str, float]:
    """See `Decided`: also the progress of the objective, and when the terms beside it are there."""
    total, response = settings.steps, settings.response
    matching, adversarial = settings.matching, settings.adversarial
    spread = settings.objective_settings.spread_by
    return {
        **decided(settings, step),
        **({f"{settings.objective}.{spread}=0": step / total} if spread else {}),
        **({"matching.start=0": matching.begun(step, total)} if matching.weight else {}),
        **({"adversarial.start=0": adversarial.begun(step, total)} if adversarial.weight else {}),
        **({"response.every=1": response.due(step, total)} if response.weight else {}),
    }


@dataclass(frozen=True)
class Continuation:
    """Tells whether a training goes on from a checkpoint of a shorter one that was finished (`Continues`).

    Attributes:
        section: of the configuration.
        settings: of the longer training.
        fingerprint: number of steps -> fingerprint of the training that differs in that number alone.
        decided: see `Decided`.
    """

    section: str
    settings: OptimiserConfig
    fingerprint: Callable[[int], str]
    decided: Decided = decided

    def __call__(self, step: int, fingerprint: str | None, saved: Sequence[int]) -> bool:
        """See `Continues`. A finished training has a checkpoint of its last step.

        Raises:
            UserError: the total number of steps decides something in those that are done, or is below them.
        """
        total = next((steps for steps in saved if steps >= step and self.fingerprint(steps) == fingerprint), None)
        if total is None:
            return False
        wanted = self.settings.steps
        if wanted < total:
            raise UserError(
                f"{self.section}.steps = {wanted}, but {counted(total, 'step is', 'steps are')} done: choose another "
                "--run, or more steps"
            )
        if needed := self._needed(with_steps(self.settings, total), step):
            raise UserError(
                f"{self.section}.steps = {wanted}: what is done, {counted(total, 'step')}, is not that of a training "
                f"of {wanted}, from step {min(needed.values())} on: train that in another --run; one that is to be "
                f"continued needs {' and '.join(needed)} from its start"
            )
        return True

    def _needed(self, before: OptimiserConfig, steps: int) -> dict[str, int]:
        """Every setting that makes the first steps those of the longer training, and the first step that differs."""
        needed = dict[str, int]()
        for number in range(steps):
            was, should_be = (self.decided(settings, number) for settings in (before, self.settings))
            for remedy in (remedy for remedy in was if was[remedy] != should_be[remedy]):
                needed.setdefault(f"{self.section}.{remedy}", number)
        return needed


def require_continuable(run: RunFolder, folder: Path, continuation: Continuation) -> None:
    """Check that a training with another number of steps than the run's goes on from what is done.

    Args:
        folder: of the training.

    Raises:
        UserError: it is not finished, or as `Continuation`.
    """
    saved = Checkpoints(folder / "checkpoints", "").steps()
    section, wanted = continuation.section, continuation.settings.steps
    stored = getattr(load_file(run.config), section) if run.exists else None
    if stored is None or not saved or stored.steps == wanted:
        return
    if saved[-1] < stored.steps:
        raise UserError(
            f"{section}.steps = {wanted}, but {saved[-1]} of {stored.steps} steps are done: finish those first, with "
            f"{section}.steps={stored.steps}, or choose another --run"
        )
    fingerprint = continuation.fingerprint(wanted)
    Checkpoints(folder / "checkpoints", fingerprint, continues=continuation).require_own(saved[-1])
