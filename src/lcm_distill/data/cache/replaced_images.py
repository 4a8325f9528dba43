# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
"""Images of a data set that are no longer those that were encoded.

A file of another size is another one. Of a file or archive that was written since the data set was looked at last, the
images are read again and compared with the checksums of those that were encoded. When a file was written is what the
system says, `st_ctime`, which no program sets back; a copy of a data set is new in this sense, and is read once. What
is not noticed: an image that was replaced, by one of its size, on a file system that does not keep that time, or on
one whose clock went back.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import crc32c

from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.manifest_rows import IMAGE_CHECKSUM
from lcm_distill.pipeline.manifest import OK


@dataclass(frozen=True)
class FileState:
    """A file's size, when its content was last changed by what programs say, and when anything of it was: in ns."""

    size: int
    modified: int
    written: int


@dataclass(frozen=True)
class Replaced:
    """Samples whose image is another one than was encoded, and how many images were not compared."""

    sample_ids: tuple[str, ...]
    not_compared: int


def file_state(path: Path) -> FileState | None:
    """The state of a file, or of what a link leads to; None if there is none."""
    try:
        state = path.stat()
    except (OSError, ValueError):
        return None
    return FileState(state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def replaced_images(cache: Cache, since: int | None, named: frozenset[str], most_bytes: int | None) -> Replaced:
    """Samples whose image is another one than the one that was encoded.

    Args:
        since: files that were written after this time are read, as `FileState.written`; None: none is, as nothing
            tells when the data set was looked at last.
        named: samples that were found to be changed before, whose images are read as well.
        most_bytes: files are read up to this sum of their sizes; None: all.
    """
    encoded, states = _encoded(cache), dict[Path, FileState | None]()
    found, to_read, left, not_compared = list[str](), list[str](), most_bytes, 0
    for path, row in encoded.items():
        file = cache.source.file_of(path)
        known = file in states
        state = states.setdefault(file, None if known else file_state(file))
        if state is None:
            continue
        if file.name == PurePosixPath(path).name and state.size != row["image_bytes"]:
            found += row["sample_ids"]
        elif row[IMAGE_CHECKSUM] is not None and (
            (since is not None and state.written > since) or named & set(row["sample_ids"])
        ):
            if left is not None and not known:
                left -= state.size
            if left is None or left >= 0:
                to_read.append(path)
            else:
                not_compared += 1
    found += [name for path in _others(cache, encoded, to_read) for name in encoded[path]["sample_ids"]]
    return Replaced(tuple(found), not_compared)


def _encoded(cache: Cache) -> dict[str, dict[str, Any]]:
    """What the manifest has of each image that was encoded, by its path, in an order in which it can be read."""
    import pyarrow.compute as pc  # which commands that only look can do without

    columns = ["sample_id", "source", "status", "image_bytes", IMAGE_CHECKSUM]
    rows = cache.manifest.read(columns=columns).filter(pc.field("status") == OK)
    encoded = dict[str, dict[str, Any]]()
    for row in rows.filter(pc.field("image_bytes").is_valid()).to_pylist():
        known = encoded.setdefault(row["source"], {**row, "sample_ids": []})
        if row["sample_id"] not in known["sample_ids"]:  # which each resolution has
            known["sample_ids"].append(row["sample_id"])
    return dict(sorted(encoded.items(), key=lambda item: item[0].rpartition("/")[0]))


def _others(cache: Cache, encoded: dict[str, dict[str, Any]], paths: list[str]) -> Iterator[str]:
    """Those of the paths whose image is another one now; not those that cannot be read."""
    for path, content in cache.source.read(paths) if paths else ():
        if isinstance(content, bytes) and crc32c.crc32c(content) != encoded[path][IMAGE_CHECKSUM]:
            yield path
