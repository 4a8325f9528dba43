"""Checkpoints that a training resumes from: one folder for each step, with a list of file hashes that is written last.

Every rank writes its share of the tensors, and any number of ranks can read them. Rank 0 commits the folder once all
have written. Which tensors those are: `training.training_state`.
"""

import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from lcm_distill.core.errors import DataError, UserError
from lcm_distill.pipeline.atomic_writes import commit_folder, discard_folder
from lcm_distill.training.checkpointing import hashes
from lcm_distill.training.checkpointing.background import Background
from lcm_distill.training.checkpointing.description import ABOUT, About, read_about, write_about
from lcm_distill.training.checkpointing.index import read_index
from lcm_distill.training.checkpointing.steps import folder_of, saved_steps
from lcm_distill.training.checkpointing.storage import load_tensors, save_tensors
from lcm_distill.training.checkpointing.tensors import not_finite
from lcm_distill.training.engine.agreement import all_found, broadcast, decide_on_main

Continues = Callable[[int, str | None, Sequence[int]], bool]
"""(step, recorded fingerprint, steps of all checkpoints) -> whether a training goes on from another's checkpoint."""


def continues_none(step: int, fingerprint: str | None, saved: Sequence[int]) -> bool:
    """A `Continues` of a training that begins by itself."""
    del step, fingerprint, saved
    return False


class Checkpoints:
    """The checkpoints of one training in one folder. `save`, `load` and `load_latest` are collective calls.

    Args:
        fingerprint: identity of the training; checkpoints of another one are refused.
        keep: number of newest checkpoints to keep on disk.
        background: write in a thread while training continues, which pays where tensors are on a GPU. It needs a
            process group, even for a single process.
        continues: tells which other trainings' checkpoints it goes on from.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        keep: int = 2,
        background: bool = False,
        continues: Continues = continues_none,
    ) -> None:
        self.folder, self.fingerprint, self.keep, self.continues = folder, fingerprint, keep, continues
        self._background = Background() if background else None
        self._is_main = not dist.is_initialized() or dist.get_rank() == 0

    def reserve(self, tensors: Mapping[str, Tensor]) -> None:
        """Allocate pinned memory for copies of such tensors in the background: pinning gigabytes takes seconds."""
        if self._background is not None:
            self._background.reserve(tensors)

    def save(self, step: int, tensors: Mapping[str, Tensor], early: bool = False) -> None:
        """Commit `tensors` after `step` steps, then delete the oldest checkpoints and any of later steps.

        In the background the call returns once the tensors are copied.

        Args:
            early: whether it only bridges an interruption: the next one replaces it, and it replaces none.
        """
        about = About(step, self.fingerprint, early)
        if self._background is None:
            self._write(about, tensors, None)
            return
        self.wait()
        group, copies = self._background.group, self._background.copy(tensors)
        self._background.start(lambda: self._write(about, copies, group))

    def wait(self) -> None:
        """Wait until saved checkpoints are committed.

        Raises:
            OSError: the checkpoint could not be written.
        """
        if self._background is not None:
            self._background.finish()

    def close(self) -> None:
        """Wait until saved checkpoints are committed, and end the thread that writes them.

        Raises:
            OSError: the checkpoint could not be written.
        """
        if self._background is not None:
            self._background.close()

    def load_latest(self, tensors: Callable[[], Mapping[str, Tensor]]) -> int | None:
        """Fill tensors from the newest intact checkpoint and return its step.

        A warning names each damaged checkpoint, and the one before it is used.

        Args:
            tensors: called only if there is a checkpoint.

        Returns:
            The step; None if there is no checkpoint.

        Raises:
            DataError: every checkpoint is damaged.
            UserError: the checkpoint belongs to a training with other settings.
        """
        step = decide_on_main(lambda: self._newest_intact(self.steps()))
        if step is None:
            return None
        filled = tensors()
        while step is not None and (damage := self._fill(step, filled)):
            step = decide_on_main(partial(self._intact_before, step, damage))
        return step

    def load(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Fill `tensors` from the checkpoint of a step, which may hold further tensors.

        Raises:
            DataError: it does not hold them.
        """
        with _without_single_process_warning():
            load_tensors(self._path(step), tensors)

    def steps(self) -> list[int]:
        """Steps with a checkpoint, ascending."""
        return saved_steps(self.folder)

    def damage(self, step: int) -> str | None:
        """A short description of damage to a step's checkpoint; None if it is as written, and under its own name."""
        folder = self._path(step)
        if damage := hashes.damage(folder):
            return damage
        try:
            read_index(folder)
        except DataError as error:
            return str(error)
        if (about := read_about(folder)) is None:
            return f"{folder / ABOUT} is not what was written"
        return None if about.step == step else f"{folder} holds the checkpoint of step {about.step}"

    def _write(self, about: About, tensors: Mapping[str, Tensor], group: Any) -> None:
        if not self._is_main:
            _save(broadcast(None, group), tensors, group)
            return

        def fill(folder: Path) -> None:
            _save(broadcast(folder, group), tensors, group)
            write_about(folder, about)
            hashes.write_hashes(folder)

        commit_folder(self._path(about.step), fill)
        self._drop_others(about.step)

    def drop_old(self) -> None:
        """Delete what a training that was killed after its newest checkpoint had yet to delete, on rank 0."""
        if self._is_main and (steps := self.steps()):
            self._drop_others(steps[-1])

    def _drop_others(self, step: int) -> None:
        """Delete all but the newest checkpoints up to a step; later ones are damaged: this step was repeated."""
        steps = self.steps()
        kept = [other for other in steps if other <= step and not self._is_early(other)][-self.keep :]
        for other in set(steps) - {step, *kept}:
            discard_folder(self._path(other))

    def _is_early(self, step: int) -> bool:
        about = read_about(self._path(step))
        return about is not None and about.early

    def _fill(self, step: int, tensors: Mapping[str, Tensor]) -> str | None:
        """Fill tensors from a checkpoint with the hashes it should have; what is wrong with it nevertheless."""
        try:
            self.load(step, tensors)
        except DataError as error:
            return str(error)
        bad = all_found(not_finite(tensors))
        return f"{self._path(step)} holds values of {bad[0]} that are not finite" if bad else None

    def _intact_before(self, step: int, damage: str) -> int | None:
        before = [other for other in self.steps() if other < step]
        self._warn(damage, bool(before))
        return self._newest_intact(before)

    def _newest_intact(self, steps: list[int]) -> int | None:
        for step in reversed(steps):
            damage = self.damage(step)
            if damage is None:
                self.require_own(step)
                return step
            self._warn(damage, step != steps[0])
        if self.steps():
            raise DataError(
                f"every checkpoint in {self.folder} is damaged: delete the folder, and training starts from scratch"
            )
        return None

    def _warn(self, damage: str, goes_on: bool) -> None:
        before = ": training resumes from the one before" if goes_on else ""
        warnings.warn(f"checkpoint damaged: {damage}{before}", stacklevel=2)

    def require_own(self, step: int) -> None:
        """Check that the training goes on from the checkpoint of a step.

        Raises:
            UserError: it is another training's.
        """
        about = read_about(self._path(step))
        recorded = about and about.fingerprint
        if recorded != self.fingerprint and not self.continues(step, recorded, self.steps()):
            raise UserError(
                f"{self.folder} was trained with other settings, from another teacher or on another cache: choose "
                f"another --run, or delete {self.folder.parent}"
            )

    def _path(self, step: int) -> Path:
        return folder_of(self.folder, step)


def _save(folder: Path, tensors: Mapping[str, Tensor], group: Any) -> None:
    with _without_single_process_warning():
        save_tensors(folder, tensors, group)


@contextmanager
def _without_single_process_warning() -> Generator[None]:
    """Suppress PyTorch's warning that there is no process group, which a single process does not need."""
    if dist.is_initialized():  # perhaps in a thread, where changing warning filters is not safe
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield
