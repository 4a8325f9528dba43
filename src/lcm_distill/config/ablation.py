"""The chain of an ablation: which settings each of its steps has, read from a file that ships beside the presets."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from pydantic import Field

from lcm_distill.config.loading import load_preset
from lcm_distill.config.parsing import validate
from lcm_distill.config.run import Config
from lcm_distill.config.section import Section
from lcm_distill.config.toml_text import read_toml
from lcm_distill.core.errors import UserError

SECTIONS = ("distill", "evaluate")
"""Where steps differ."""
OF_THE_STUDENT = ("distill.", "evaluate.student_")
"""How keys begin that steps may change."""
SHARED = ("seed", "data", "encoders", "cache", "model", "diffusion", "engine")
"""What all steps have in common, and so one cache and one teacher."""
LAST = "default"
"""The step that ends the chain."""


class StepEntry(Section):
    """One step, as the file has it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """What the step is called in tables and folders."""
    why: str
    """One line: what the change is good for."""
    preset: str | None = None
    """Preset whose settings the step has; for the first one alone."""
    base: str | None = None
    """Earlier step that this one is a side branch of. Unset: it follows the one before in the chain."""
    set: tuple[str, ...] = ()
    """Assignments, `section.key=value`, that it adds."""


class AblationFile(Section):
    """The whole file."""

    settings: tuple[str, ...] = ()
    """Assignments that all steps share, below those of the user."""
    step: list[StepEntry] = Field(min_length=1)
    """The chain in order, side branches among or after it."""


@dataclass(frozen=True)
class Step:
    """One row of the ablation.

    Attributes:
        base: the step it is compared with; None for the first.
        in_chain: whether it leads from the original to the default, rather than branching off.
        from_default: assignments that turn the default's configuration into this step's.
    """

    name: str
    why: str
    base: "Step | None"
    in_chain: bool
    from_default: tuple[str, ...]


@dataclass(frozen=True)
class Ablation:
    """Steps in the order of the file, and the assignments that all of them share."""

    settings: tuple[str, ...]
    steps: tuple[Step, ...]

    def select(self, names: Sequence[str]) -> tuple[Step, ...]:
        """The named steps in the order of the file; all if none is named.

        Raises:
            UserError: there is no such step.
        """
        known = [step.name for step in self.steps]
        if unknown := [name for name in names if name not in known]:
            raise UserError(f"the ablation has no step {unknown[0]!r}: choose from {', '.join(known)}")
        return tuple(step for step in self.steps if not names or step.name in names)


def load_ablation(preset: str) -> Ablation:
    """The ablation that ships for a preset.

    Raises:
        UserError: there is none, or it is wrong.
    """
    file = resources.files("lcm_distill.config") / "presets" / "ablations" / f"{preset}.toml"
    if not file.is_file():
        raise UserError(f"no ablation ships for preset {preset!r}: choose shapes")
    return parse_ablation(file.read_text(), preset)


def parse_ablation(text: str, preset: str) -> Ablation:
    """An ablation whose last step of the chain is `preset`, from TOML text.

    Raises:
        UserError: a key or value is wrong, or the chain does not end in the preset; the message names the step.
    """
    origin = f"ablation of {preset}"
    file = validate(AblationFile, read_toml(text, origin), origin)
    _check_order(file, origin)
    default = load_preset(preset, file.settings)
    resolved: dict[str, Config] = {}
    steps: dict[str, Step] = {}
    previous = ""
    for entry in file.step:
        base = "" if entry.preset else entry.base or previous
        start = load_preset(entry.preset, file.settings) if entry.preset else resolved[base]
        where = f"{origin}, step {entry.name}"
        config = resolved[entry.name] = start.changed(entry.set, where)
        from_default = _assignments(config, default, where)
        steps[entry.name] = Step(entry.name, entry.why, steps.get(base), entry.base is None, from_default)
        previous = previous if entry.base else entry.name
    if differing := resolved[LAST].differences(default, SECTIONS):
        raise UserError(f"{origin}: step {LAST} still differs from preset {preset}: {'; '.join(differing)}")
    return Ablation(file.settings, tuple(steps.values()))


def _check_order(file: AblationFile, origin: str) -> None:
    names = [entry.name for entry in file.step]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{origin}: two steps are called {twice[0]!r}")
    for index, entry in enumerate(file.step):
        if (entry.preset is not None) != (index == 0):
            raise UserError(f"{origin}: the first step, and no other, has a preset: see step {entry.name!r}")
        if entry.base is not None and entry.base not in names[:index]:
            raise UserError(f"{origin}: step {entry.name!r} has base {entry.base!r}, which is no earlier step")
    last = [entry.name for entry in file.step if entry.base is None][-1]
    if last != LAST:
        raise UserError(f"{origin}: the chain ends in step {last!r}, not in {LAST!r}")


def _assignments(config: Config, default: Config, where: str) -> tuple[str, ...]:
    """What turns `default` into `config`; noise levels that only `default` has may stay."""
    deviations = config.deviations(default, (*SHARED, *SECTIONS))
    if foreign := [key for key in deviations if key == "distill.seed" or not key.startswith(OF_THE_STUDENT)]:
        raise UserError(f"{where} changes {foreign[0]}: steps share all but distill and evaluate.student_*")
    return tuple(f"{key}={json.dumps(own)}" for key, (own, _) in deviations.items() if own is not None)
