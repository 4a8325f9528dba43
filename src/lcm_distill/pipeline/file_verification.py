# pyarrow ships no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""Reading what was committed: a file is believed if it has the size and the hash that its commit recorded."""

import logging
import warnings
from collections.abc import Sequence

from lcm_distill.core.errors import DataError
from lcm_distill.core.hashing import bytes_sha256
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.storage import Storage, WrittenFile
from lcm_distill.pipeline.task import Task

log = logging.getLogger(__name__)


def read_verified(storage: Storage, file: WrittenFile, remedy: str) -> bytes:
    """The content of a committed file.

    Args:
        remedy: what to do about a damaged file, for the message.

    Raises:
        DataError: it is missing or not what was written.
    """
    reason, content = examine(storage, file)
    if content is None or reason:
        raise DataError(f"{storage.locate(file.name)}: {reason}: {remedy}")
    return content


def examine(storage: Storage, file: WrittenFile) -> tuple[str | None, bytes | None]:
    """What differs in a committed file from what was written, if anything; its content, if its size is right."""
    try:
        content = storage.read(file.name)
    except FileNotFoundError:
        return "the file is missing", None
    if len(content) != file.size:
        return f"has {len(content):,} bytes, {file.size:,} were written", None
    if bytes_sha256([content]) != file.sha256:
        return "SHA-256 is not the one recorded", content
    return None, content


def withdraw_damaged(manifest: Manifest, tasks: Sequence[Task]) -> None:
    """Revoke those of the tasks' commits that are damaged, so that their work is done again; a warning names each.

    A damaged file of the manifest itself is deleted.

    Args:
        tasks: those whose files are read and compared with their hashes.
    """
    names, damaged = {task.name for task in tasks}, list[str]()
    for part in manifest.files():
        try:
            entries = [entry for entry, _ in manifest.rows(part)]
        except DataError:
            _warn(manifest, part, "is damaged")
            manifest.storage.remove(part)
            continue
        for entry in entries:
            for file in entry.files if entry.task in names else ():
                reason, _ = examine(manifest.storage, file)
                if reason:
                    _warn(manifest, file.name, reason)
                    damaged.append(entry.task)
    manifest.drop(damaged)


def _warn(manifest: Manifest, name: str, reason: str) -> None:
    message = f"{manifest.storage.locate(name)}: {reason}: it is made again"
    log.warning(message)
    warnings.warn(message, stacklevel=3)
