"""Hashes that identify configurations, files and their contents."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def digest(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of a JSON value; the order of dictionary keys does not matter."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bytes_sha256(parts: Iterable[bytes | bytearray | memoryview]) -> str:
    """Hex SHA-256 of the concatenation of `parts`."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()
