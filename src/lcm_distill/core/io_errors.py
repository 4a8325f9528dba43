"""Errors of the file system that name their file."""

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def naming_file(path: Path) -> Generator[None]:
    """Give an `OSError` that names no file, such as one of `os.writev`, the name of `path`.

    Raises:
        OSError: any that the block raises, with `filename` and `strerror` set.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        code = error.errno or errno.EIO
        raise OSError(code, error.strerror or str(error) or os.strerror(code), str(path)) from error
