"""Run folders that begin with what another run has made."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from lcm_distill.pipeline.run_folder import RunFolder


def borrow(finished: RunFolder, root: Path, *copied: str, linked: Iterable[str] = ()) -> RunFolder:
    """A run with copies of files and folders of another one, and links to others, which must not change."""
    root.mkdir(parents=True, exist_ok=True)
    for name in linked:
        (root / name).symlink_to(finished.root / name)
    for name in copied:
        copy = shutil.copytree if (finished.root / name).is_dir() else shutil.copy
        copy(finished.root / name, root / name)
    return RunFolder(root)
