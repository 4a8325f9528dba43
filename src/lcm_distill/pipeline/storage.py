# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownParameterType=false
"""Storage of a run's records and shards: files by name, each written atomically."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from lcm_distill.core.regular_files import read_regular
from lcm_distill.pipeline.atomic_writes import commit_parts

Part = bytes | bytearray | memoryview
"""Part of the content of a file."""


@dataclass(frozen=True)
class WrittenFile:
    """A file that was written: its name in its storage, its size in bytes and its hex SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Stat:
    """Size of a file in bytes, and its modification time in seconds since 1970."""

    size: int
    modified: float


class Storage(Protocol):
    """Files below one folder or URL. Names are relative, separated by `/`. Threads and processes may share one.

    Attributes:
        readers: number of threads with which small files are read fastest.
    """

    readers: int

    def put(self, name: str, parts: Sequence[Part]) -> WrittenFile:
        """Write the concatenation of `parts` to the file `name`, replacing an earlier one in one step."""
        ...

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: there is no such file.
        """
        ...

    def source(self, name: str) -> Path | pa.BufferReader:
        """What pyarrow can read the file from.

        Raises:
            FileNotFoundError: there is no such file. A path is returned without looking.
        """
        ...

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        """Sizes in bytes of those of the files that exist."""
        ...

    def listing(self, folder: str) -> dict[str, Stat]:
        """The files directly in a folder, in order of name, without those that are being written."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file if it exists."""
        ...

    def locate(self, name: str = "") -> str:
        """The path or URL of a file, or of the storage itself."""
        ...


@dataclass(frozen=True)
class LocalStorage:
    """Files below a folder."""

    root: Path
    readers = 2

    def put(self, name: str, parts: Sequence[Part]) -> WrittenFile:
        """Write a temporary file, fsync it and rename it."""
        return WrittenFile(name, sum(map(len, parts)), commit_parts(self.root / name, parts))

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return read_regular(self.root / name)

    def source(self, name: str) -> Path:
        """The file's path."""
        return self.root / name

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        """Sizes in bytes of those of the files that exist."""
        paths = {name: self.root / name for name in names}
        return {name: path.stat().st_size for name, path in paths.items() if path.is_file()}

    def listing(self, folder: str) -> dict[str, Stat]:
        """The files directly in a folder that are not hidden, in order of name.

        Raises:
            OSError: the folder cannot be listed.
        """
        try:
            found = sorted((self.root / folder).iterdir())  # unlike a pattern, it tells what may not be listed
        except (FileNotFoundError, NotADirectoryError):
            return {}
        paths = [path for path in found if not path.name.startswith(".") and path.is_file()]
        stats = {path: path.stat() for path in paths}
        return {str(path.relative_to(self.root)): Stat(stat.st_size, stat.st_mtime) for path, stat in stats.items()}

    def remove(self, name: str) -> None:
        """Delete a file if it exists."""
        (self.root / name).unlink(missing_ok=True)

    def locate(self, name: str = "") -> str:
        """The path."""
        return str(self.root / name)
