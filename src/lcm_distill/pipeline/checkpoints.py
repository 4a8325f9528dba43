"""Checkpoints a run resumes from: one folder a step, hash-listed, the list written last."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lcm_distill.errors import DataError, UserError
from lcm_distill.pipeline.atomic import commit_bytes, commit_folder, file_sha256

STATE = "state.pt"
HASHES = "SHA256SUMS"


class Checkpoints:
    """The checkpoints below one folder, of one training identified by its fingerprint.

    Args:
        keep: how many of the newest stay on disk.
    """

    def __init__(self, folder: Path, fingerprint: str, keep: int = 2) -> None:
        self.folder, self.fingerprint, self.keep = folder, fingerprint, keep

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Commit `state` after `step` steps, then drop the oldest."""

        def write(folder: Path) -> None:
            torch.save({"fingerprint": self.fingerprint, **state}, folder / STATE)
            commit_bytes(folder / HASHES, f"{file_sha256(folder / STATE)}  {STATE}\n".encode())

        commit_folder(self._path(step), write)
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self._path(old))

    def load_latest(self) -> tuple[int, dict[str, Any]] | None:
        """Step and state of the newest checkpoint, tensors on the CPU; None when there is none.

        Raises:
            DataError: its bytes are not the ones that were written.
            UserError: it belongs to a training with other settings.
        """
        steps = self.steps()
        if not steps:
            return None
        folder = self._path(steps[-1])
        if not (folder / HASHES).is_file() or file_sha256(folder / STATE) != (folder / HASHES).read_text().split()[0]:
            raise DataError(f"{folder} is damaged: delete it, and training goes on from the one before")
        state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        if state.pop("fingerprint") != self.fingerprint:
            raise UserError(f"{self.folder} was trained with other settings: choose another --run, or delete it")
        return steps[-1], state

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*"))

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:07d}"
