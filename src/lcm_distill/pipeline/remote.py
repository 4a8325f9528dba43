# obstore's stubs name its own types for what is plain data.
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Files in an object store, by `s3://bucket/prefix` or `gs://bucket/prefix`."""

import functools
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any, TypeVar

import pyarrow as pa

from lcm_distill.core.errors import StorageError, UserError
from lcm_distill.pipeline.storage import Part, Stat, WrittenFile

RETRY = {"max_retries": 8, "retry_timeout": timedelta(seconds=60)}
"""Refusals and broken connections are tried again for this long."""
FEW = 16
"""So many files are asked for one by one; for more, listing their folders is faster."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class RemoteStorage:
    """Objects below a URL. Credentials and endpoints come from the environment, as the stores' own tools take them.

    An object store puts a whole object in one step, so what is there is whole. Every method raises StorageError when
    the store refuses or cannot be reached.
    """

    url: str
    readers = 32

    def put(self, name: str, parts: Sequence[Part]) -> WrittenFile:
        """Send the parts as one object."""
        import obstore

        content = b"".join(parts)
        self._ask(name, lambda: obstore.put(_open(self.url), name, content))
        return WrittenFile(name, len(content), sha256(content).hexdigest())

    def read(self, name: str) -> bytes:
        """An object's content."""
        import obstore

        return self._ask(name, lambda: bytes(obstore.get(_open(self.url), name).bytes()), may_be_absent=True)

    def source(self, name: str) -> pa.BufferReader:
        """The object's content."""
        return pa.BufferReader(self.read(name))

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        """Bytes of those of the objects that are there."""
        if len(names) <= FEW:
            with ThreadPoolExecutor(FEW) as threads:
                found = zip(names, threads.map(self._size, names), strict=True)
                return {name: size for name, size in found if size is not None}
        listed = {name: stat.size for top in {name.split("/")[0] for name in names} for name, stat in self._below(top)}
        return {name: listed[name] for name in names if name in listed}

    def listing(self, folder: str) -> dict[str, Stat]:
        """The objects right below a folder, in order of name."""
        depth = folder.count("/") + 1
        return {name: stat for name, stat in sorted(self._below(folder)) if name.count("/") == depth}

    def remove(self, name: str) -> None:
        """Delete an object, if it is there."""
        import obstore

        try:
            self._ask(name, lambda: obstore.delete(_open(self.url), name), may_be_absent=True)
        except FileNotFoundError:
            return

    def locate(self, name: str = "") -> str:
        """The URL."""
        return f"{self.url.rstrip('/')}/{name}" if name else self.url

    def _size(self, name: str) -> int | None:
        import obstore

        try:
            return self._ask(name, lambda: obstore.head(_open(self.url), name)["size"], may_be_absent=True)
        except FileNotFoundError:
            return None

    def _below(self, folder: str) -> list[tuple[str, Stat]]:
        import obstore

        chunks = self._ask(folder, lambda: list(obstore.list(_open(self.url), f"{folder}/")))
        return [
            (item["path"], Stat(item["size"], item["last_modified"].timestamp())) for chunk in chunks for item in chunk
        ]

    def _ask(self, name: str, request: Callable[[], Result], may_be_absent: bool = False) -> Result:
        from obstore.exceptions import BaseError

        try:
            return request()
        except FileNotFoundError as error:
            if may_be_absent:
                raise FileNotFoundError(f"{self.locate(name)} is not there") from error
            raise StorageError(f"{self.locate(name)}: there is no such bucket: create it first") from error
        except BaseError as error:
            raise StorageError(f"{self.locate(name)}: {_reason(error)}: check the bucket and your keys") from error


@functools.lru_cache(maxsize=8)
def _open(url: str) -> Any:
    """A connection a process and URL.

    Raises:
        UserError: the extra `cloud` is not installed, or the URL is none of an object store.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url  # pyright: ignore[reportUnknownVariableType]
    except ImportError as error:
        raise UserError(f"{url} needs obstore: pip install 'lcm-distill[cloud]'") from error
    try:
        return from_url(url, retry_config=RETRY)  # pyright: ignore[reportCallIssue, reportArgumentType]
    except (BaseError, ValueError) as error:
        raise UserError(f"{url} cannot be opened: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What an error says before it goes into the details, on one line."""
    return " ".join(str(error).split("Debug source:")[0].split())[:300]
