# obstore's stubs name its own types for what is plain data.
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Files in an object store, by `s3://bucket/prefix` or `gs://bucket/prefix`."""

import functools
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import pyarrow as pa

from lcm_distill.core.errors import StorageError, UserError
from lcm_distill.core.hashing import bytes_sha256
from lcm_distill.pipeline.storage import Part, Stat, WrittenFile

RETRY = {"max_retries": 8, "retry_timeout": timedelta(seconds=60)}
"""Refused requests and broken connections are retried for this long."""
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
"""Seconds before a list whose response was torn is requested again."""
FEW = 16
"""Up to this many files are looked up one by one; for more, listing their folders is faster."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class RemoteStorage:
    """Objects below a URL. Credentials and endpoints come from the environment variables of the stores' own tools.

    An object store writes a whole object in one step. Every method raises StorageError if the store refuses the request
    or cannot be reached.
    """

    url: str
    readers = 32

    def put(self, name: str, parts: Sequence[Part]) -> WrittenFile:
        """Write the concatenation of `parts` as one object."""
        import obstore

        content = b"".join(parts)
        self._request(name, lambda: obstore.put(_open(self.url), name, content))
        return WrittenFile(name, len(content), bytes_sha256([content]))

    def read(self, name: str) -> bytes:
        """The content of an object."""
        import obstore

        return self._request(name, lambda: bytes(obstore.get(_open(self.url), name).bytes()), may_be_missing=True)

    def source(self, name: str) -> pa.BufferReader:
        """The content of an object, in memory."""
        return pa.BufferReader(self.read(name))

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        """Sizes in bytes of those of the objects that exist."""
        if len(names) <= FEW:
            with ThreadPoolExecutor(FEW) as threads:
                found = zip(names, threads.map(self._size, names), strict=True)
                return {name: size for name, size in found if size is not None}
        listed = {name: stat.size for top in {name.split("/")[0] for name in names} for name, stat in self._below(top)}
        return {name: listed[name] for name in names if name in listed}

    def listing(self, folder: str) -> dict[str, Stat]:
        """The objects directly in a folder, in order of name."""
        depth = folder.count("/") + 1
        return {name: stat for name, stat in sorted(self._below(folder)) if name.count("/") == depth}

    def remove(self, name: str) -> None:
        """Delete an object if it exists."""
        import obstore

        try:
            self._request(name, lambda: obstore.delete(_open(self.url), name), may_be_missing=True)
        except FileNotFoundError:
            return

    def locate(self, name: str = "") -> str:
        """The URL of an object, or of the storage itself."""
        return f"{self.url.rstrip('/')}/{name}" if name else self.url

    def _size(self, name: str) -> int | None:
        import obstore

        try:
            return self._request(name, lambda: obstore.head(_open(self.url), name)["size"], may_be_missing=True)
        except FileNotFoundError:
            return None

    def _below(self, folder: str) -> list[tuple[str, Stat]]:
        import obstore

        chunks = self._request(folder, lambda: _whole_list(lambda: list(obstore.list(_open(self.url), f"{folder}/"))))
        return [
            (item["path"], Stat(item["size"], item["last_modified"].timestamp())) for chunk in chunks for item in chunk
        ]

    def _request(self, name: str, request: Callable[[], Result], may_be_missing: bool = False) -> Result:
        from obstore.exceptions import BaseError

        try:
            return request()
        except FileNotFoundError as error:
            if may_be_missing:
                raise FileNotFoundError(f"{self.locate(name)} is not there") from error
            raise StorageError(f"{self.locate(name)}: there is no such bucket: create it first") from error
        except BaseError as error:
            raise StorageError(f"{self.locate(name)}: {_reason(error)}: check the bucket and your keys") from error


def _whole_list(request: Callable[[], Result]) -> Result:
    """The result of a request for a list, made again where the response ends early or cannot be read.

    obstore does so itself for every other response.
    """
    from obstore.exceptions import GenericError

    for seconds in PAUSES:
        try:
            return request()
        except GenericError as error:
            if "list response" not in str(error):
                raise
            time.sleep(seconds)
    return request()


@functools.lru_cache(maxsize=8)
def _open(url: str) -> Any:
    """The store at a URL; a process has one connection to each.

    Raises:
        UserError: the extra `cloud` is not installed, or the URL is not that of an object store.
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
    """The message of an error on one line, without its debug details."""
    return " ".join(str(error).split("Debug source:")[0].split())[:300]
