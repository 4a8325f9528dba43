"""The smallest run that has every part, at each point between two commands."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lcm_distill import assets
from lcm_distill.shapes.dataset import annotations_path, write_images
from tests.command_line import shapes
from tests.faults.commands import Ended, lcm

TINY = [
    "data.source=journeydb", "data.valid_fraction=0.3", "cache.shard_rows=8", "encoders.batch_size=8",
    "pretrain.steps=2", "pretrain.batch_size=4", "pretrain.checkpoint_every=1", "distill.steps=4",
    "distill.batch_size=4", "distill.checkpoint_every=2", "distill.matching.weight=0",
    "distill.adversarial.weight=0", "evaluate.images=4",
    "evaluate.shard_images=2", "evaluate.batch_size=2", "evaluate.teacher=[['euler', 2]]", "evaluate.student_steps=[1]",
    "schedule.samples=4", "schedule.steps=[2]",
    f"model.teacher='{assets.TEACHER}'",  # of images such as these, which are given as one's own
]  # fmt: skip
IMAGES = 24


@dataclass(frozen=True)
class SmallRuns:
    """Makes the run `place / "run"`, always at this path, which is in some of its files.

    Attributes:
        states: folders with what a run holds after some commands.
    """

    place: Path
    states: dict[str, Path] = field(default_factory=dict[str, Path])

    def __post_init__(self) -> None:
        lines = [line for _, line in write_images(self.images, 0, IMAGES, 64)]
        annotations_path(self.images).write_text("\n".join(lines) + "\n")

    @property
    def root(self) -> Path:
        """The run folder."""
        return self.place / "run"

    @property
    def images(self) -> Path:
        """The data set."""
        return self.place / "data set"

    @property
    def new(self) -> list[str]:
        """Options that begin the run."""
        return shapes([*TINY, f"data.root='{self.images}'"])

    def restore(self, state: str | None) -> None:
        """Bring the run to a state: `cached`, `trained`, or one that was kept; None begins with nothing."""
        if state is not None and state not in self.states:
            before, words = {"cached": (None, ["precompute", *self.new]), "trained": ("cached", ["distill"])}[state]
            self.restore(before)
            self.make(*words)
            self.keep(state)
        shutil.rmtree(self.root, ignore_errors=True)
        if state is not None:
            shutil.copytree(self.states[state], self.root)

    def keep(self, state: str) -> None:
        """Keep the run as it is now."""
        self.states[state] = self.place / state
        shutil.copytree(self.root, self.states[state])

    def do(self, *words: object, fault: Callable[[], object] | None = None) -> Ended:
        """How a command on the run ends; `fault` as `commands.lcm` takes it."""
        return lcm(*words, "--run", self.root, fault=fault)

    def make(self, *words: object) -> None:
        """Do what must succeed."""
        ended = self.do(*words)
        assert ended.code == 0, ended
