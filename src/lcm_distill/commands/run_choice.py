"""The run that a command works on, and its configuration."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lcm_distill.core.errors import UserError

if TYPE_CHECKING:
    from lcm_distill.config import Assignment, Config
    from lcm_distill.pipeline.run_folder import RunFolder

DEFAULT = "shapes"


@dataclass(frozen=True)
class Choice:
    """What the options `--preset`, `--config`, `--set`, `--run` and `--cache` of a command say.

    An existing run keeps the configuration that made it: `--set` changes it, `--preset` and `--config` may only repeat
    it.

    Attributes:
        student: a checkpoint from elsewhere that stands for the run's student.
        cache: another run, whose cache is used, as `--set cache.run` names it too. A new run takes the settings of the
            cache from there, and all others too where neither `--preset` nor `--config` is given.
    """

    preset: str | None = None
    file: Path | None = None
    assignments: "Sequence[Assignment]" = ()
    run: Path | None = None
    student: Path | None = None
    cache: Path | None = None

    def load(self, begins: bool = True, settings: "Sequence[Assignment]" = ()) -> "tuple[Config, RunFolder]":
        """Configuration and run folder.

        Args:
            begins: whether the command can begin a run.
            settings: assignments of a new run, below the user's own.

        Raises:
            UserError: there is no such run, the options contradict it or each other, or a key or value is wrong.
        """
        from lcm_distill.config import load_file
        from lcm_distill.pipeline.run_folder import RunFolder
        from lcm_distill.pipeline.run_place import require_unclaimed

        if self.preset and self.file:
            raise UserError("--preset and --config exclude each other")
        named = bool(self.preset or self.file)
        begins = begins or self.owner is not None
        folder = RunFolder(self.run or Path("runs") / self.given(settings).preset)
        folder.student = self.student or folder.student
        if not folder.exists:
            if self.run is not None:
                self._refuse_to_begin(self.run, begins, named or self.owner is not None)
            require_unclaimed(folder)
            return self.given(settings), folder
        stored = load_file(folder.config, [*self.assignments, *self._assigned(self.owner)])
        if named:
            self._refuse_conflict(folder, stored, self.given(settings))
        return stored, folder

    def _refuse_to_begin(self, run: Path, begins: bool, named: bool) -> None:
        from lcm_distill.pipeline.run_place import no_run

        if run.exists() and not run.is_dir():
            raise UserError(f"{run} is a file: give a run folder")
        if begins and not named:
            raise no_run(run, "a new run needs --preset or --config")
        if not begins:
            begun = "" if run.exists() else f"; `lcm run --preset NAME --run {run}` begins one"
            raise no_run(run, f"give the folder of a run{begun}")

    def given(self, settings: "Sequence[Assignment]" = ()) -> "Config":
        """The configuration that `--preset` or `--config`, `--cache` and `--set` name, whatever the run.

        Raises:
            UserError: as `load`.
        """
        from lcm_distill.config import load_file, load_preset, named
        from lcm_distill.pipeline.run_folder import RunFolder
        from lcm_distill.pipeline.run_place import no_run

        assignments, owner = [*settings, *self.assignments], self.owner
        if owner is None:
            return self._in_file(assignments) if self.file else load_preset(self.preset or DEFAULT, assignments)
        option, cache = f"--cache {owner}" if self.cache else f"cache.run = '{owner}'", RunFolder(owner)
        if not cache.exists:
            raise no_run(owner, "give the cache's run", named=option)
        other = load_file(cache.config)
        base = self._in_file() if self.file else load_preset(self.preset) if self.preset else other
        shared = base.sharing(other, owner)
        return shared.changed([*map(named, assignments), *self._assigned(shared.cache.run)], option)

    @cached_property
    def owner(self) -> Path | None:
        """The run whose cache is to be used, by `--cache` or `--set cache.run`; None where neither names one.

        Raises:
            UserError: they name two.
        """
        from lcm_distill.config import load_preset

        # Other keys may be wrong for this preset, and right for the one that is taken from the cache's run.
        keys = ("cache", "cache.run")
        given = [each for each in self.assignments if isinstance(each, str)]
        assigned = [each for each in given if each.partition("=")[0].strip() in keys]
        named = load_preset(DEFAULT, assigned).cache.run if assigned else None
        if self.cache and named and named != self.cache.absolute():
            raise UserError(f"--cache {self.cache} and cache.run = '{named}' are two runs: leave one of them out")
        return self.cache or named

    def _assigned(self, owner: "Path | None") -> "list[Assignment]":
        """The assignment of the run whose cache is used."""
        assignment = f"cache.run={json.dumps(str(owner))}"
        return [] if owner is None else [(f"--cache {owner}" if self.cache else f"--set {assignment}", assignment)]

    def _in_file(self, assignments: "Sequence[Assignment]" = ()) -> "Config":
        from lcm_distill.config import parse

        return parse(self._text, str(self.file), assignments)

    @cached_property
    def _text(self) -> str:
        """What `--config` holds, read once: a command looks at it several times, and a pipe gives it only once."""
        from lcm_distill.config import read_given

        assert self.file is not None
        return read_given(self.file)

    def _refuse_conflict(self, folder: "RunFolder", stored: "Config", given: "Config") -> None:
        from lcm_distill.config.describe import differing

        conflicts = [f"{key} = {own!r}, not {other!r}" for key, (own, other) in differing(stored, given).items()]
        if conflicts:
            option = f"--preset {self.preset}" if self.preset else f"--config {self.file}"
            raise UserError(
                f"{folder.root} was made with {'; '.join(conflicts)}: leave {option} out, the run keeps its "
                "configuration; change keys with --set, or choose another --run"
            )
