"""Atomic writes: temporary name, fsync, rename, fsync of the folder. What is replaced is replaced whole."""

import ctypes
import errno
import logging
import os
import shutil
import socket
import stat
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from lcm_distill.core.child_process import is_running
from lcm_distill.core.errors import UserError
from lcm_distill.core.hashing import bytes_sha256
from lcm_distill.core.io_errors import naming_file

TEMPORARY = ".writing-"
"""Prefix of the names of files and folders that are being written."""

REPLACED = "~replaced~"
"""Suffix of a temporary folder that holds, by its own name, a folder whose place a new one is about to take."""

ABANDONED_SECONDS = 24 * 3600
"""Another machine's unfinished file is an orphan once it has not been modified for this long."""

PARTS_PER_CALL = 1024
"""The most buffers that `writev` takes on every system."""

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Constants of Linux's `renameat2`."""

log = logging.getLogger(__name__)


def commit_bytes(path: Path, content: bytes | bytearray | memoryview) -> None:
    """Write `content` to `path`, replacing an earlier file.

    Raises:
        OSError: the file cannot be written; the earlier one is unchanged.
    """
    commit_parts(path, [content])


def commit_parts(path: Path, parts: Sequence[bytes | bytearray | memoryview]) -> str:
    """Write the concatenation of `parts` to `path`, replacing an earlier file; returns its hex SHA-256.

    Raises:
        OSError: the file cannot be written; the earlier one is unchanged.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb", buffering=0) as file:
            _write_all(file.fileno(), parts)

    with ThreadPoolExecutor(1) as threads:
        sha256 = threads.submit(bytes_sha256, parts)  # takes as long as writing, so at the same time
        commit_file(path, write)
        return sha256.result()


def _write_all(descriptor: int, parts: Sequence[bytes | bytearray | memoryview]) -> None:
    """Many parts per system call: faster than one by one, and the page cache keeps them in larger pieces."""
    waiting = deque(part for part in (memoryview(part).cast("B") for part in parts) if part)
    while waiting:
        written = os.writev(descriptor, list(islice(waiting, PARTS_PER_CALL)))
        while waiting and written >= len(waiting[0]):
            written -= len(waiting.popleft())
        if written:
            waiting[0] = waiting[0][written:]


def commit_file(path: Path, write: Callable[[Path], object]) -> None:
    """Put the file that `write` makes, at the temporary path it is given, at `path`, replacing an earlier file.

    Raises:
        OSError: the file cannot be written, or something else than a file is there; it is unchanged.
    """
    require_file_or_nothing(path)
    with _written_to(path) as temporary:
        write(temporary)
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync(path.parent)


def require_file_or_nothing(path: Path) -> None:
    """Check that a file may take the place of what is at `path`; before work whose result goes there.

    Raises:
        FileExistsError: there is a folder, or something else that is no regular file.
    """
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "exists and is not a regular file", str(path))


def require_writable(path: Path) -> None:
    """Check that something new can be written at `path`; before work whose result goes there. Nothing stays there.

    Raises:
        OSError: it cannot, or a part of the path is a file.
    """
    path = path.absolute()
    tried = next(folder for folder in path.parents if folder.exists()) / _temporary(path).name
    try:
        tried.touch()
        tried.unlink()
    except OSError as error:
        error.filename = str(path)
        raise


def commit_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Put the folder that `write` fills at `path`, replacing an earlier folder.

    Killed at any moment, one of the two folders is at `path`, at the latest after `remove_orphans`.

    Raises:
        OSError: the folder cannot be written; the earlier one is unchanged.
    """
    with _written_to(path) as temporary:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write(temporary)
        for file in temporary.rglob("*"):
            _let_read(file, temporary)
            _fsync(file)
        _fsync(temporary)
        if path.exists():
            _replace_folder(temporary, path)
        else:
            os.replace(temporary, path)
        _fsync(path.parent)


def _let_read(file: Path, folder: Path) -> None:
    """Give a file the rights that new files have beside a new folder: some libraries write it for its owner alone."""
    mode = file.lstat().st_mode
    wanted = mode | folder.stat().st_mode & 0o666
    if stat.S_ISREG(mode) and wanted != mode:
        file.chmod(stat.S_IMODE(wanted))


def discard_folder(path: Path) -> None:
    """Delete a folder: killed at any moment, it is whole, or `remove_orphans` deletes the rest.

    Raises:
        OSError: it cannot be deleted.
    """
    with naming_file(path):
        discarded = _temporary(path)
        shutil.rmtree(discarded, ignore_errors=True)
        os.replace(path, discarded)
        shutil.rmtree(discarded)


@contextmanager
def _written_to(path: Path) -> Generator[Path]:
    """A temporary path beside `path`; where the block fails it is removed, and the error names `path`."""
    temporary = _temporary(path)
    try:
        with naming_file(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
    except Exception as error:
        if isinstance(error, OSError) and str(error.filename).startswith(str(temporary)):
            error.filename = str(path)
        _remove(temporary)
        raise


def _remove(path: Path) -> None:
    """Remove a file or a folder, or leave what the file system does not let go to `remove_orphans`."""
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _replace_folder(new: Path, path: Path) -> None:
    """Put `new` at `path`: in one step where the system can, else by two renames that `remove_orphans` completes."""
    if _exchange(new, path):
        shutil.rmtree(new)
        return
    replaced = path.with_name(f"{temporary_prefix()}{path.name}{REPLACED}")
    replaced.mkdir(exist_ok=True)
    os.replace(path, replaced / path.name)
    _fsync(path.parent)
    os.replace(new, path)
    _fsync(path.parent)
    shutil.rmtree(replaced)


def exchange_folders(one: Path, other: Path) -> None:
    """Exchange the names of two folders in one step: at no moment is either name absent.

    Raises:
        UserError: the operating system or the file system cannot do this; nothing was changed.
        OSError: it failed otherwise; nothing was changed.
    """
    if not _exchange(one, other):
        raise UserError(f"the file system of {other} cannot exchange folders: leave it as it is, it is complete")


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders; False if the operating system or the file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    paths = os.fsencode(one.absolute()), os.fsencode(other.absolute())
    if libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) != 0:
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV):
            return False
        raise OSError(code, os.strerror(code), str(other))
    _fsync(other.parent)
    return True


def remove_orphans(folder: Path) -> int:
    """Delete what interrupted writers left below `folder`; returns the number of these files and folders.

    A folder that was moved aside for a new one which never took its place is moved back.

    Several machines may work in one folder: what a living process of this machine writes stays, and so does what
    another machine's process wrote lately.
    """
    temporary = folder.rglob(f"{TEMPORARY}*") if folder.is_dir() else ()
    orphans = [path for path in temporary if _is_orphan(path)]
    for orphan in orphans:
        log.info("removing %s, left by an interrupted writer", orphan)
        if orphan.name.endswith(REPLACED):
            _restore(orphan)
        if orphan.is_dir():
            shutil.rmtree(orphan, ignore_errors=True)
        else:
            orphan.unlink(missing_ok=True)
    return len(orphans)


def remove_orphans_of(*paths: Path) -> None:
    """Delete what interrupted writers of these files left beside them, in folders that may be anyone's."""
    for path in paths:
        beside = list(path.parent.iterdir()) if path.parent.is_dir() else []
        for other in beside:
            if other.name.startswith(TEMPORARY) and other.name.endswith(f"-{path.name}~") and _is_orphan(other):
                shutil.rmtree(other) if other.is_dir() else other.unlink(missing_ok=True)


def _restore(replaced: Path) -> None:
    """Move a replaced folder back if nothing has taken its place."""
    for folder in replaced.iterdir():
        place = replaced.with_name(folder.name)
        if not place.exists():
            log.warning("restoring %s, whose replacement was interrupted", place)
            os.replace(folder, place)
            _fsync(place.parent)


def temporary_prefix() -> str:
    """The prefix of the names of what this process is writing: process id and host name."""
    return f"{TEMPORARY}{os.getpid()}@{socket.gethostname()}-"


def _temporary(path: Path) -> Path:
    """A name beside `path` without a known suffix: DuckDB's `*.parquet` matches hidden files as well."""
    return path.with_name(f"{temporary_prefix()}{path.name}~")


def _is_orphan(path: Path) -> bool:
    process, _, rest = path.name.removeprefix(TEMPORARY).partition("@")
    if process.isdecimal() and rest.startswith(f"{socket.gethostname()}-"):
        # Where the id is our own it was used by an earlier process: this one has not written yet.
        return int(process) == os.getpid() or not is_running(int(process))
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_SECONDS
    except FileNotFoundError:
        return False  # its writer has just finished


def _fsync(path: Path) -> None:
    with naming_file(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
