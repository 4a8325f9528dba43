"""Errors of the file system: the file they are about, whatever library met them, and what to do."""

import errno
import os
import re
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from lcm_distill.core.errors import UserError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNREACHABLE = (*NO_SPACE, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE)
"""Errors of the device or of permissions: whoever tries again meets them again."""

ADVICE = {
    **dict.fromkeys(NO_SPACE, "free space there, then give the same command again; nothing committed is lost"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "get permission for it, or choose another path"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (ulimit -n), then try again"),
    errno.EIO: "check the device, then give the same command again; nothing committed is lost",
    errno.EISDIR: "give the path of a file",
    errno.ENOTDIR: "part of the path is a file: give another one",
    errno.ENOENT: "check the path",
    errno.ENAMETOOLONG: "give a shorter path",
}

_NUMBERED = re.compile(r"\((?:os )?error (\d+)\)|\[errno (\d+)\]", re.IGNORECASE)
_TORCH_WRITER = re.compile("PytorchStreamWriter|PyTorchFileWriter|file write failed|unexpected pos")
"""What `torch.save` says of a failed write, which is not why."""
_LITTLE = 1 << 20
"""Bytes below which a device counts as full, where a library does not say why it could not write."""


@contextmanager
def naming_file(path: Path) -> Generator[None]:
    """Give an `OSError` that names no file, such as one of `os.writev`, the name of `path`.

    So it does to errors of libraries that stand for one of the file system, such as a RuntimeError of `torch.save`.

    Raises:
        OSError: any that the block raises, with `filename` and `strerror` set.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # that of a distributed checkpoint is no Exception
        found = os_error_in(error)
        if found is None or (found is error and found.filename is not None and found.errno is not None):
            raise
        named = OSError(found.errno or _reason(path), found.strerror or str(found), found.filename or str(path))
        raise named from error


def os_error_in(error: BaseException) -> OSError | None:
    """The error of the file system that an error stands for: itself, a cause of it, or what its message tells.

    Its `errno` is None where the library does not say why it could not write.
    """
    for cause in _causes(error):
        if isinstance(cause, OSError):
            return cause
        if number := _NUMBERED.search(str(cause)):
            code = int(number[1] or number[2])
            return OSError(code, os.strerror(code))
        if _TORCH_WRITER.search(str(cause)):
            return OSError("cannot be written")
    return None


def require_reachable(error: BaseException, where: str) -> None:
    """Raise what a file could not be read for, if that is its device or a permission: this is no damage of the file.

    Args:
        error: that reading or decoding it raised. where: the file, for an error that names none.

    Raises:
        OSError: it is one of `UNREACHABLE`.
    """
    if isinstance(error, OSError) and error.errno in UNREACHABLE:
        raise OSError(error.errno, error.strerror, error.filename or where) from error


def describe(error: OSError) -> str:
    """An error of the file system in one line: the file, what is wrong with it, and what to do."""
    reason = os.strerror(error.errno) if error.errno in UNREACHABLE else error.strerror or str(error)
    where = [os.fsdecode(error.filename)] if isinstance(error.filename, str | bytes) else []
    return ": ".join([*where, reason, *([ADVICE[error.errno]] if error.errno in ADVICE else [])])


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(path: Path) -> int:
    """Why nothing could be written there, as far as the device tells."""
    folder = next(folder for folder in path.absolute().parents if folder.is_dir())
    return errno.ENOSPC if shutil.disk_usage(folder).free < _LITTLE else errno.EIO
