"""Decompression of files of unknown origin: their checksums count, and what follows the compressed content is told."""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from io import BufferedReader
from typing import Any, Protocol

READ = 2**16
"""Bytes that are read at once."""
CHECKS = ("incorrect data check", "incorrect length check")
"""What zlib says where content could be decompressed and is other than its checksum or length says."""
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, OSError)
"""What decompressing a damaged file raises."""


class ChecksumError(OSError):
    """All of it can be decompressed, and is not what was compressed: nothing tells where it is damaged."""


class _Decompressor(Protocol):
    """As of `bz2.BZ2Decompressor`: of one stream, of which a file may have several."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """The same for gzip, whose checksum zlib verifies."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)
        except zlib.error as error:
            if any(check in str(error) for check in CHECKS):
                raise ChecksumError("CRC check failed") from error
            raise


XZ = b"\xfd7zXZ\0"
KINDS: dict[bytes, Callable[[], _Decompressor]] = {
    b"\x1f\x8b": _Gzip,
    b"BZh": bz2.BZ2Decompressor,
    XZ: lzma.LZMADecompressor,
}
"""How each kind of compression begins, and what decompresses it and verifies its checksums."""


class Decompressed(io.RawIOBase):
    """The content of a compressed file: of all its streams, one after another, as the usual tools read it.

    Reading raises one of `DAMAGE` where it is damaged; `EOFError` where it is cut off.

    Attributes:
        locates: whether the place where decompression fails is near the damage; with xz it is not.
        followed: whether, once all is read, other bytes than zeros follow the compressed content.
    """

    def __init__(self, file: BufferedReader, magic: bytes) -> None:
        self._file, self._magic = file, magic
        self._stream: _Decompressor = KINDS[magic]()
        self._rest, self._ended = b"", False
        self.locates, self.followed = magic != XZ, False

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer, or a part of it; returns how many bytes that are, 0 at the end."""
        view = memoryview(buffer).cast("B")
        content = b""
        while not content and not self._ended:
            if self._stream.eof:
                self._next_stream()
            else:
                content = self._more(len(view))
        view[: len(content)] = content
        return len(content)

    def _more(self, most: int) -> bytes:
        """Some of what follows in this stream, or nothing before more of the file is read or the stream ends."""
        asked = self._stream.needs_input
        data = (self._rest or self._file.read(READ)) if asked else b""
        self._rest = b"" if asked else self._rest
        content = self._stream.decompress(data, most)
        if asked and not data and not content:
            raise EOFError("it stops before the end of its compressed content")
        return content

    def _next_stream(self) -> None:
        """Begin the stream that follows, after zeros or none; where none does, tell whether anything does."""
        rest = self._stream.unused_data.lstrip(b"\0")
        while len(rest) < len(self._magic) and (data := self._file.read(READ)):
            rest = (rest + data).lstrip(b"\0")
        if rest.startswith(self._magic):
            self._stream, self._rest = KINDS[self._magic](), rest
        else:
            self._ended, self.followed = True, bool(rest)


def decompressed(file: BufferedReader) -> BufferedReader:
    """What a file contains that may be compressed: the file itself, or a reader of a `Decompressed`."""
    start = file.peek(6)
    magic = next((magic for magic in KINDS if start.startswith(magic)), None)
    return file if magic is None else BufferedReader(Decompressed(file, magic), READ)
