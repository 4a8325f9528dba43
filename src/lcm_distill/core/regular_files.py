"""Files that somebody else named: opened only where they are regular files, and read up to a limit."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path


def open_regular(path: Path) -> BufferedReader:
    """A regular file, or a link to one, open for reading; never a pipe, socket or device, which would wait or act.

    Raises:
        OSError: it is not there, cannot be opened, or is something else.
        ValueError: the path contains NUL or what the file system cannot spell.
    """
    _require_regular(path.stat().st_mode, path)
    # Not blocking: what has become a pipe since then does not hang either.
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(number).st_mode, path)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def is_regular(path: Path) -> bool:
    """Whether a regular file, or a link to one, is there; not at a path that no file can have."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def read_regular(path: Path, limit: int | None = None) -> bytes:
    """The content of a regular file.

    Args:
        limit: bytes that it may have; None takes any number, for files of this project's own.

    Raises:
        OSError: as `open_regular`, or it has more than `limit` bytes.
        ValueError: as `open_regular`.
    """
    with open_regular(path) as file:
        if limit is None:
            return file.read()
        # The size first: a sparse file of terabytes takes no disk and would fill the memory.
        if os.fstat(file.fileno()).st_size <= limit and len(content := file.read(limit + 1)) <= limit:
            return content
    raise OSError(errno.EFBIG, f"more than {limit:,} bytes", str(path))


def open_to_write(path: Path) -> int:
    """A descriptor of a regular file to read and write in place; it is made where there is none.

    Raises:
        OSError: it cannot be opened, or is something else.
    """
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    try:
        _require_regular(os.fstat(number).st_mode, path)
        return number
    except BaseException:
        os.close(number)
        raise


def _require_regular(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
