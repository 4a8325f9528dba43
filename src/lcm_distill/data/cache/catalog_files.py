"""The two files of a catalog: in their places, or put aside while they are being replaced.

The manifest records the hash of each, so it tells which one counts: until a new catalog is committed, the earlier one.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from lcm_distill.core.errors import DataError
from lcm_distill.data.cache.catalog import CAPTIONS_FILE, SAMPLES_FILE
from lcm_distill.pipeline.file_verification import examine
from lcm_distill.pipeline.storage import Storage, WrittenFile

FILES = (SAMPLES_FILE, CAPTIONS_FILE)
BEFORE = "catalog/before"
"""Folder of the catalog that is being replaced."""


def put_aside(storage: Storage) -> None:
    """Keep the catalog's files beside their places, before others are written there."""
    for name in FILES:
        storage.put(_aside(name), [storage.read(name)])


def is_aside(storage: Storage) -> bool:
    """Whether a catalog was put aside and not forgotten since."""
    return bool(storage.sizes([_aside(name) for name in FILES]))


def put_back(storage: Storage, recorded: Sequence[WrittenFile]) -> None:
    """Write those of the files that were put aside to their places that are the recorded ones."""
    for file in recorded:
        reason, content = examine(storage, _in_aside(file))
        if content is not None and not reason:
            storage.put(file.name, [content])


def forget_aside(storage: Storage) -> None:
    """Remove what was put aside, once the catalog in its place is the recorded one."""
    for name in FILES:
        storage.remove(_aside(name))


def examine_catalog_file(storage: Storage, file: WrittenFile) -> tuple[str | None, bytes | None]:
    """As `examine` of a file that the catalog's commit names: what is aside counts while its replacement does not."""
    reason, content = examine(storage, file)
    if reason:
        damaged, aside = examine(storage, _in_aside(file))
        if not damaged:
            return None, aside
    return reason, content


def read_catalog_file(storage: Storage, file: WrittenFile, remedy: str) -> bytes:
    """The content of a file that the catalog's commit names.

    Args:
        remedy: what to do about a damaged file, for the message.

    Raises:
        DataError: it is missing or not what was written, and so is what was put aside.
    """
    reason, content = examine_catalog_file(storage, file)
    if content is None or reason:
        raise DataError(f"{storage.locate(file.name)}: {reason}: {remedy}")
    return content


def _in_aside(file: WrittenFile) -> WrittenFile:
    return replace(file, name=_aside(file.name))


def _aside(name: str) -> str:
    return f"{BEFORE}/{PurePosixPath(name).name}"
