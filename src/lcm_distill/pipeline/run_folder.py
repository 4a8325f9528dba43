"""The folder of one run and the names of what lies in it."""

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Collection, Generator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path

from lcm_distill.config import Config, load_file
from lcm_distill.core.errors import UserError
from lcm_distill.core.json import parse_json
from lcm_distill.core.regular_files import read_regular
from lcm_distill.pipeline.atomic_writes import commit_bytes, remove_orphans
from lcm_distill.pipeline.lock import FOLDER as LOCKS

PACKAGES = ("lcm-distill", "torch", "diffusers", "open_clip_torch", "zarr", "pyarrow", "duckdb", "numpy", "pillow")


def recorded_environment(run: "RunFolder") -> dict[str, str]:
    """Commit, Python and libraries that a run was made with, by name; nothing where its record is damaged or gone."""
    try:
        recorded = parse_json(read_regular(run.environment))
        versions = {name: recorded[name] for name in ("commit", "python")} | recorded["packages"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {str(name): str(found) for name, found in versions.items() if found is not None}


def recorded_platform(run: "RunFolder") -> str | None:
    """Operating system and architecture that a run was made on; None where its record is damaged or gone."""
    try:
        return str(parse_json(read_regular(run.environment))["platform"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def require_foreign(path: Path) -> None:
    """Check that a result which a user wants at `path` does not take the place of a file that a run lives by.

    Raises:
        UserError: it would.
    """
    run = RunFolder(path.parent)
    if run.exists and path in run.kept:
        raise UserError(f"{path} is a file of the run {path.parent}: choose another --out")


class RunFolder:
    """Everything that a run makes, below one folder.

    Args:
        data_of: a run whose images and cache this one uses; its own if none is given.

    Attributes:
        student: the student's checkpoint, which the run publishes; a command may set it to a file from elsewhere.
        continued: names of trainings whose number of steps may change, as a command that runs them sets it.
    """

    def __init__(self, root: Path, data_of: "RunFolder | None" = None) -> None:
        self.root = root
        self.config = root / "config.toml"
        self.environment = root / "environment.json"
        self.logs = root / "logs"
        self.images = data_of.images if data_of else _first_folder(root / "pictures", root / "images")
        self.cache = data_of.cache if data_of else root / "cache"
        self.held_cache = root / "cache.json"
        self.readers = root / "readers"
        self.pretrain = root / "pretrain"
        self.distill = root / "distill"
        self.evaluate = root / "evaluate"
        self.teacher = root / "teacher.safetensors"
        self.student = root / "student.safetensors"
        self.schedule = root / "schedule"
        self.adapter = root / "adapter"
        self.metrics = root / "metrics.parquet"
        self.grid = root / "grid.png"
        self.guidance = root / "guidance"
        self.ablation = root / "ablation"
        self.continued: Collection[str] = ()
        self._own_student = self.student
        self._settled_by = {
            self.images: ("seed", "data"),
            self.cache: ("seed", "data", "encoders", "cache"),
            self.pretrain: ("seed", "model", "diffusion", "engine", "pretrain"),
            self.distill: ("seed", "model", "diffusion", "engine", "distill"),
        }

    @property
    def has_foreign_student(self) -> bool:
        """Whether `student` was set to a file that this run did not train."""
        return self.student.resolve() != self._own_student.resolve()

    def require_student(self, remedy: str) -> Path:
        """The student's checkpoint.

        Args:
            remedy: what trains one where this run has none.

        Raises:
            UserError: there is none.
        """
        return self.require(self.student, "give another --student" if self.has_foreign_student else remedy)

    @property
    def begun(self) -> list[Path]:
        """Folders of the trainings that have begun."""
        return [training for training in (self.pretrain, self.distill) if training.exists()]

    @property
    def kept(self) -> list[Path]:
        """Files that commands on the run read again."""
        tables = [self.metrics, self.guidance.with_suffix(".parquet"), self.ablation.with_suffix(".parquet")]
        return [self.config, self.environment, self.held_cache, self.teacher, self.student, *tables]

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return self.config.is_file()

    @property
    def traces(self) -> set[Path]:
        """What a run leaves that has made nothing yet, or was killed before its configuration was written."""
        return {self.config, self.environment, self.logs, self.held_cache, self.root / LOCKS}

    @property
    def parts(self) -> set[Path]:
        """All that a run makes, which may lie in its folder before its configuration, as a cache that was copied."""
        return {path for path in vars(self).values() if isinstance(path, Path)} | self.traces

    def is_changed_by(self, config: Config) -> bool:
        """Whether opening it with `config` begins a run, or changes the configuration of one."""
        return not self.exists or load_file(self.config) != config

    def open(self, config: Config) -> None:
        """Create the folder, remove what interrupted writers left, and record configuration and environment.

        Raises:
            UserError: settings differ from those of work that is already here; nothing was changed.
        """
        self.refuse_other_settings(config)
        self.root.mkdir(parents=True, exist_ok=True)
        remove_orphans(self.root)
        commit_bytes(self.config, config.to_toml().encode())
        commit_bytes(self.environment, json.dumps(environment(), indent=2).encode())

    @contextmanager
    def opened(self, config: Config) -> Generator[None]:
        """The folder, open; a changed configuration is stored once the work has succeeded.

        It is stored at once where the work may begin something whose settings the configuration holds, such as a
        training, which must find them when it resumes; work that fails before it begins restores the earlier one. It is
        stored for good where a finished training is continued.

        Raises:
            UserError: as `open`.
        """
        before, works, continues = self._recorded(), self._works(), self._continues(config)
        self.open(config if continues or self._may_begin(config) else load_file(self.config))
        try:
            yield
        except BaseException:
            if self._works() == works and not continues:
                self._restore(before)
            raise
        self.open(config)

    @contextmanager
    def joined(self) -> Generator[None]:
        """The folder, in a rank whose first one has opened it."""
        self.root.mkdir(parents=True, exist_ok=True)
        remove_orphans(self.root)
        yield

    def _may_begin(self, config: Config) -> bool:
        """Whether there is no run yet, or settings change of work that is not here yet."""
        if not self.exists:
            return True
        self.refuse_other_settings(config)
        stored = load_file(self.config)
        return any(
            stored.differences(config, sections) for work, sections in self._settled_by.items() if not work.exists()
        )

    def _continues(self, config: Config) -> bool:
        """Whether a training that is here gets another number of steps."""
        return self.exists and any(
            load_file(self.config).deviations(config, sections).keys() & self._may_change(work)
            for work, sections in self._settled_by.items()
            if work.exists()
        )

    def _may_change(self, work: Path) -> set[str]:
        return {f"{work.name}.steps"} if work.name in self.continued else set()

    def _recorded(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (self.config, self.environment) if path.is_file()}

    def _works(self) -> list[Path]:
        """Work that is here and whose settings the configuration holds."""
        return [work for work in self._settled_by if work.exists()]

    def _restore(self, before: dict[Path, bytes]) -> None:
        for path, content in before.items():
            commit_bytes(path, content)
        if not before and self.traces.issuperset(self.root.iterdir()):
            shutil.rmtree(self.root)

    def refuse_other_settings(self, config: Config) -> None:
        """Do nothing if `config` can resume the work that is already here.

        Raises:
            UserError: its settings are not those that the work was made with.
        """
        if not self.exists:
            return
        stored = load_file(self.config)
        if config.cache.run is not None and self.cache.exists():
            raise UserError(
                f"{self.cache} was made here, and cache.run = '{config.cache.run}' names another run's: leave it out, "
                "or choose another --run"
            )
        for work in self._works():
            differences = stored.differences(config, self._settled_by[work], self._may_change(work))
            if "data" in self._settled_by[work]:
                differences += stored.other_data(config)
            if differences:
                raise UserError(
                    f"{work} was made with {'; '.join(differences)}: choose another --run, or delete {work}"
                )

    def require(self, path: Path, remedy: str) -> Path:
        """`path`, if it exists.

        Raises:
            UserError: it does not; the message ends in `remedy`.
        """
        if not path.exists():
            raise UserError(f"{path} is missing: {remedy}")
        return path


def environment() -> dict[str, object]:
    """Versions of what a result depends on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "commit": source_commit(),
        "packages": versions,
    }


@cache
def source_commit() -> str | None:
    """The commit of the source tree this package runs from, with `+` when it has changes; None outside git."""
    here = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def _first_folder(old: Path, new: Path) -> Path:
    """`old`, which earlier versions made, where there is one."""
    return old if old.is_dir() else new
