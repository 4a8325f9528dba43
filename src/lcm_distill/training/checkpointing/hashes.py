"""The list of a checkpoint's files with their hashes, by which damage is noticed."""

import re
from collections.abc import Iterator
from pathlib import Path

from lcm_distill.core.hashing import file_sha256
from lcm_distill.core.regular_files import read_regular
from lcm_distill.pipeline.atomic_writes import commit_bytes
from lcm_distill.training.checkpointing.steps import folder_of, saved_steps

HASHES = "SHA256SUMS"
"""Hex SHA-256 of every file, in the format of `sha256sum`."""
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\n]+)\n")


def write_hashes(folder: Path) -> None:
    """List all files of a folder."""
    lines = (f"{file_sha256(path)}  {path.name}\n" for path in sorted(folder.iterdir()))
    commit_bytes(folder / HASHES, "".join(lines).encode())


def damage(folder: Path) -> str | None:
    """A short description of damage to a folder's files; None if they are exactly those that were listed."""
    path = folder / HASHES
    if not path.is_file():
        return f"{path} is missing"
    listed = dict[str, str]()
    for number, line in enumerate(read_regular(path).decode(errors="replace").splitlines(keepends=True), 1):
        if (entry := _LINE.fullmatch(line)) is None:
            return f"line {number} of {path} is not what was written"
        listed[entry[2]] = entry[1]
    here = {file.name for file in folder.iterdir()} - {HASHES}
    if unlisted := sorted(here - listed.keys()):
        return f"{path} does not list {unlisted[0]}"
    for name, sha256 in listed.items():
        if name not in here:
            return f"{folder / name} is missing"
        if not (folder / name).is_file() or file_sha256(folder / name) != sha256:
            return f"{folder / name} is not what was written"
    return None


def damaged_checkpoints(checkpoints: Path) -> Iterator[tuple[str, str]]:
    """Damaged ones in the folder of a training's checkpoints, with what that means."""
    for step in saved_steps(checkpoints):
        folder = folder_of(checkpoints, step)
        try:
            flawed = damage(folder) is not None
        except FileNotFoundError:
            continue
        if flawed and folder.is_dir():  # a training that goes on drops old ones
            yield str(folder), "a training resumes from the checkpoint before; delete this one"
