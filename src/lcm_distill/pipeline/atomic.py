"""Writing that either happened or did not: a temporary name, fsync, rename, fsync of the folder."""

import ctypes
import errno
import hashlib
import os
import shutil
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from lcm_distill.core.errors import UserError

TEMPORARY = ".writing-"
"""Prefix of what is being written."""

ABANDONED_SECONDS = 24 * 3600
"""Another machine's unfinished file is an orphan once it has not been touched for this long."""

PARTS_A_CALL = 1024
"""Every system that has `writev` takes so many."""

_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE of Linux."""


def commit_bytes(path: Path, content: bytes | bytearray | memoryview) -> None:
    """Put `content` at `path`, replacing what was there."""
    commit_parts(path, [content])


def commit_parts(path: Path, parts: Sequence[bytes | bytearray | memoryview]) -> str:
    """Put at `path` the parts one after the other, replacing what was there; returns their hex SHA-256."""

    def write(temporary: Path) -> None:
        with temporary.open("wb", buffering=0) as file:
            _write_all(file.fileno(), parts)

    def digest() -> str:
        total = hashlib.sha256()
        for part in parts:
            total.update(part)
        return total.hexdigest()

    with ThreadPoolExecutor(1) as threads:
        sha256 = threads.submit(digest)  # takes as long as writing, so beside it
        commit_file(path, write)
        return sha256.result()


def _write_all(descriptor: int, parts: Sequence[bytes | bytearray | memoryview]) -> None:
    """Many parts to a system call: faster than one by one, and the page cache keeps them in larger pieces."""
    waiting = deque(part for part in (memoryview(part).cast("B") for part in parts) if part)
    while waiting:
        written = os.writev(descriptor, list(islice(waiting, PARTS_A_CALL)))
        while waiting and written >= len(waiting[0]):
            written -= len(waiting.popleft())
        if written:
            waiting[0] = waiting[0][written:]


def commit_file(path: Path, write: Callable[[Path], None]) -> None:
    """Put at `path` the file that `write` makes at the path it is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    write(temporary)
    _fsync(temporary)
    os.replace(temporary, path)
    _fsync(path.parent)


def commit_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Put at `path` the folder that `write` fills, replacing a folder that was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
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


def exchange_folders(one: Path, other: Path) -> None:
    """Let two folders change places in one step: at no moment is either name absent.

    Raises:
        UserError: the operating system or the file system cannot do this; nothing was changed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise _cannot_exchange(other)
    paths = os.fsencode(one.absolute()), os.fsencode(other.absolute())
    if libc.renameat2(_HERE, paths[0], _HERE, paths[1], _EXCHANGE) != 0:
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV):
            raise _cannot_exchange(other)
        raise OSError(code, os.strerror(code), str(other))
    _fsync(other.parent)


def _cannot_exchange(folder: Path) -> UserError:
    return UserError(f"the file system of {folder} cannot exchange folders: leave it as it is, it is complete")


def remove_orphans(folder: Path) -> int:
    """Delete what interrupted writers left below `folder`; returns how many files and folders that were.

    Several machines may work in one folder: what a living process of this machine writes stays, and so does what
    another machine's process wrote lately.
    """
    temporary = folder.rglob(f"{TEMPORARY}*") if folder.is_dir() else ()
    orphans = [path for path in temporary if _is_orphan(path)]
    for orphan in orphans:
        if orphan.is_dir():
            shutil.rmtree(orphan, ignore_errors=True)
        else:
            orphan.unlink(missing_ok=True)
    return len(orphans)


def temporary_prefix() -> str:
    """Begins the names of what this process is writing: they tell whose they are."""
    return f"{TEMPORARY}{os.getpid()}@{socket.gethostname()}-"


def _temporary(path: Path) -> Path:
    """A name beside `path` that bears no known suffix: DuckDB's `*.parquet` matches hidden files as well."""
    return path.with_name(f"{temporary_prefix()}{path.name}~")


def _is_orphan(path: Path) -> bool:
    process, _, rest = path.name.removeprefix(TEMPORARY).partition("@")
    if process.isdecimal() and rest.startswith(f"{socket.gethostname()}-"):
        return not _is_running(int(process))
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_SECONDS
    except FileNotFoundError:
        return False  # its writer has just finished


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return False  # a number used again: this process has not written yet
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
