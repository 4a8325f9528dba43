# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownParameterType=false
"""Where a run's records and shards are kept: files by name, each either wholly there or not at all."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from lcm_distill.pipeline.atomic import commit_parts

Part = bytes | bytearray | memoryview


@dataclass(frozen=True)
class WrittenFile:
    """A file that is safely stored: its name in its storage, its size in bytes and its hex SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Stat:
    """What a listing says of a file: bytes, and when it was written, in seconds since 1970."""

    size: int
    modified: float


class Storage(Protocol):
    """Files below one place. Names are relative, their parts separated by `/`. Threads and processes may share one.

    Attributes:
        readers: how many threads it takes to read small files as fast as it can give them.
    """

    readers: int

    def put(self, name: str, parts: Sequence[Part]) -> WrittenFile:
        """Store the parts one after the other under `name`, replacing what was there in one step."""
        ...

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: there is no such file.
        """
        ...

    def source(self, name: str) -> Path | pa.BufferReader:
        """What pyarrow reads a file from.

        Raises:
            FileNotFoundError: there is no such file, and what is returned cannot say so itself.
        """
        ...

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        """Bytes of those of the files that are there."""
        ...

    def listing(self, folder: str) -> dict[str, Stat]:
        """The files right below a folder, in order of name; what is being written is none."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        ...

    def locate(self, name: str = "") -> str:
        """A file or the whole place, as messages name it."""
        ...


@dataclass(frozen=True)
class LocalStorage:
    """Files below a folder."""

    root: Path
    readers = 2

    def put(self, name: str, parts: Sequence[Part]) -> WrittenFile:
        """Write, make safe, rename."""
        return WrittenFile(name, sum(map(len, parts)), commit_parts(self.root / name, parts))

    def read(self, name: str) -> bytes:
        """A file's content."""
        return (self.root / name).read_bytes()

    def source(self, name: str) -> Path:
        """The file's path."""
        return self.root / name

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        """Bytes of those of the files that are there."""
        paths = {name: self.root / name for name in names}
        return {name: path.stat().st_size for name, path in paths.items() if path.is_file()}

    def listing(self, folder: str) -> dict[str, Stat]:
        """The files right below a folder that are not hidden."""
        paths = sorted(path for path in (self.root / folder).glob("[!.]*") if path.is_file())
        stats = {path: path.stat() for path in paths}
        return {str(path.relative_to(self.root)): Stat(stat.st_size, stat.st_mtime) for path, stat in stats.items()}

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        (self.root / name).unlink(missing_ok=True)

    def locate(self, name: str = "") -> str:
        """The path."""
        return str(self.root / name)
