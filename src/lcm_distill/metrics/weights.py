"""Published weight files: where they lie, and whether they are what was published."""

from dataclasses import dataclass
from pathlib import Path

import torch

from lcm_distill.core.errors import UserError
from lcm_distill.core.hashing import file_sha256


@dataclass(frozen=True)
class PublishedWeights:
    """A file that others' figures were made with.

    Attributes:
        names: what it is called; libraries keep the same bytes under several names. sha256: hex digest.
        source: who publishes it.
    """

    names: tuple[str, ...]
    sha256: str
    source: str

    def find(self, where: str | Path | None) -> Path:
        """The file at `where`, or in that folder; unset, in PyTorch's cache of downloads.

        Raises:
            UserError: it is not there, or holds other bytes.
        """
        folder = Path(where) if where is not None else Path(torch.hub.get_dir()) / "checkpoints"
        candidates = [folder] if folder.is_file() else [folder / name for name in self.names]
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            raise UserError(
                f"{self.names[0]} is not there: fetch it from {self.source} and put it into "
                f"{folder if where is None or folder.is_dir() else folder.parent}, or say where it lies"
            )
        if (sha256 := file_sha256(found)) != self.sha256:
            raise UserError(
                f"{found} is not {self.names[0]} as published (SHA-256 {sha256[:12]}, not {self.sha256[:12]}): fetch "
                f"it again from {self.source}"
            )
        return found
