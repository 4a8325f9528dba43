"""Writing that either happened or did not: a temporary name, fsync, rename, fsync of the folder."""

import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

TEMPORARY = ".writing-"
"""Prefix that no reader looks for; what still bears it after a crash is an orphan."""


@dataclass(frozen=True)
class WrittenFile:
    """A file that is safely on disk."""

    path: Path
    size: int
    sha256: str


def commit_bytes(path: Path, content: bytes | bytearray | memoryview) -> WrittenFile:
    """Put `content` at `path`, replacing what was there."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    with ThreadPoolExecutor(1) as threads:
        digest = threads.submit(hashlib.sha256, content)  # takes as long as writing, so beside it
        commit_file(path, write)
    return WrittenFile(path, len(content), digest.result().hexdigest())


def commit_file(path: Path, write: Callable[[Path], None]) -> None:
    """Put at `path` the file that `write` makes at the path it is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(TEMPORARY + path.name)
    write(temporary)
    _fsync(temporary)
    os.replace(temporary, path)
    _fsync(path.parent)


def commit_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Put at `path` the folder that `write` fills, replacing a folder that was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(TEMPORARY + path.name)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    write(temporary)
    for file in temporary.rglob("*"):
        _fsync(file)
    _fsync(temporary)
    if path.exists():
        shutil.rmtree(path)
    os.replace(temporary, path)
    _fsync(path.parent)


def remove_orphans(folder: Path) -> int:
    """Delete what interrupted writers left below `folder`; returns how many files and folders that were."""
    orphans = list(folder.rglob(f"{TEMPORARY}*")) if folder.is_dir() else []
    for orphan in orphans:
        if orphan.is_dir():
            shutil.rmtree(orphan, ignore_errors=True)
        else:
            orphan.unlink(missing_ok=True)
    return len(orphans)


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
