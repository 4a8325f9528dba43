"""Hashes that identify configurations, files and their contents."""

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from lcm_distill.core.regular_files import open_regular


def json_sha256(value: Any) -> str:
    """Hex SHA-256 of a JSON value; the order of dictionary keys does not matter."""
    return bytes_sha256([json.dumps(value, sort_keys=True, default=str).encode()])


def digest(value: Any) -> str:
    """The first 16 digits of `json_sha256`."""
    return json_sha256(value)[:16]


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content.

    Raises:
        OSError: the file cannot be read, or is not a regular one.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unchanged_file_sha256(path: Path) -> str:
    """`file_sha256` of a file that is read once while size and time stay what they are.

    Raises:
        OSError: as `file_sha256`.
    """
    state = path.stat()
    return _file_sha256_as_of(path, state.st_size, state.st_mtime_ns)


@cache
def _file_sha256_as_of(path: Path, size: int, modified: int) -> str:
    del size, modified  # they distinguish a file that was replaced
    return file_sha256(path)


def bytes_sha256(parts: Iterable[bytes | bytearray | memoryview]) -> str:
    """Hex SHA-256 of the concatenation of `parts`."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()
