"""A finished training continued: whether the steps that it has done are the first ones of a longer training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
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
        differing = self._first_difference(with_steps(self.settings, total), step)
        if differing is not None:
            needed = " and ".join(f"{self.section}.{key}={value:g}" for key, value in self._needed().items())
            raise UserError(
                f"{self.section}.steps = {wanted}: what is done, {counted(total, 'step')}, is not that of a training "
                f"of {wanted}, from step {differing} on: train that in another --run; one that is to be "
                f"continued needs {needed} from its start"
            )
        return True

    def _first_difference(self, before: OptimiserConfig, steps: int) -> int | None:
        """The first step that is not that of the longer training."""
        pairs = ((self.decided(before, number), self.decided(self.settings, number)) for number in range(steps))
        return next((number for number, (was, should_be) in enumerate(pairs) if was != should_be), None)

    def _needed(self) -> dict[str, float]:
        """Every setting, with its value, that makes nothing depend on the number of steps, and is another one now.

        Those are named that happen to decide nothing in these steps as well: they would in the next ones.
        """
        keys = dict(remedy.split("=") for remedy in self.decided(self.settings, 0))
        return {key: float(value) for key, value in keys.items() if self._value(key) != float(value)}

    def _value(self, key: str) -> float:
        return float(attrgetter(key)(self.settings))


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
