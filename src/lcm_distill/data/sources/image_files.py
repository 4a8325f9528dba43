"""Image files below a folder."""

import errno
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath

from lcm_distill.core.regular_files import open_regular, read_regular
from lcm_distill.data.sources.interface import MISSING
from lcm_distill.formats.images import MARKS, MAX_IMAGE_BYTES, UnusableImage, has_its_end

NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
"""Errors that tell that no file is at a path, or can be."""


def read_files(root: Path, paths: Iterable[str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
    """Contents of the files at `paths` below `root`, in the same order."""
    for path in paths:
        try:
            yield path, read_regular(root / path, MAX_IMAGE_BYTES)
        except (OSError, ValueError) as error:
            reason = MISSING if is_missing(root / path) else f"unreadable file: {getattr(error, 'strerror', error)}"
            yield path, UnusableImage(reason)


def is_missing(path: Path) -> bool:
    """Whether no file that may be an image is at a path, as `read_files` says; a link to nowhere is none."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        return error.errno in NOWHERE
    except ValueError:  # NUL, or what the file system cannot spell
        return True


def is_broken_off(path: Path) -> bool:
    """Whether an image file lacks its end, as one that an interrupted extraction leaves, and cannot be decoded.

    Of a file that has its end no more than that is read.
    """
    try:
        with open_regular(path) as file:
            start, size = file.read(MARKS), file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MARKS))
            if has_its_end(start, file.read(), size):
                return False
        from lcm_distill.data.transforms import decode  # imports Pillow, which commands that only look do without

        decode(read_regular(path, MAX_IMAGE_BYTES), min_size=1)
    except (OSError, ValueError, UnusableImage):
        return True
    return False


def group_by_parent(paths: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Consecutive paths with the same parent, after that parent."""
    for parent, run in groupby(paths, key=lambda path: str(PurePosixPath(path).parent)):
        yield parent, list(run)


def leaves_root(path: str) -> bool:
    """Whether a path leads out of the folder that it is relative to."""
    return posixpath.isabs(path) or posixpath.normpath(path).split("/")[0] == ".."


def place_below(root: Path, folder: str, name: str) -> str | None:
    """The path, relative to `root`, of the file that a record names; None if it lies elsewhere.

    Args:
        folder: below `root`, to which a name that is not absolute is relative.
    """
    path = posixpath.normpath(posixpath.join(folder, name))
    if posixpath.isabs(path):
        for base in (root.absolute(), root.resolve()):
            path = path.removeprefix(f"{base}/")
    return None if leaves_root(path) else path
