"""Tar archives, compressed or not, read as a stream without extracting them to disk."""

import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from lcm_distill.data.sources.interface import UnusableImage

DAMAGE = (tarfile.TarError, EOFError, zlib.error, OSError)
"""Exceptions of reading a damaged archive."""


def stream_members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the wanted files in an archive, in its order.

    Raises:
        one of `DAMAGE`: the archive is damaged at this point.
    """
    with tarfile.open(archive, "r|*") as stream:
        for member in stream:
            name = str(PurePosixPath(member.name))
            if member.isfile() and wanted(name):
                file = stream.extractfile(member)
                assert file is not None
                yield name, file.read()


def read_members(archive: Path, wanted: Mapping[str, str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
    """Some files of an archive, in its order; then those that could not be read, with the reason.

    Args:
        wanted: the path to yield, by name in the archive.
    """
    left = dict(wanted)
    reason = "missing file"
    try:
        for name, content in stream_members(archive, left.__contains__):
            yield left.pop(name), content
            if not left:
                return
    except DAMAGE as error:
        reason = f"damaged archive {archive.name}: {error}"
    yield from ((called, UnusableImage(reason)) for called in left.values())
