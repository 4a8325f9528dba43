"""Text in files of unknown origin: its encoding, its JSON, and its lines."""

import codecs
import json
from collections.abc import Iterator
from io import BufferedReader, BytesIO
from typing import IO, Any, cast

MAX_TEXT_BYTES = 2**24
"""The longest caption file, or line of annotations, that is read."""
MAX_TABLE_BYTES = 2**30
"""The longest file of annotations that is read as a whole."""

_ENDS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\ufeff"
"""White space, and the byte order mark that other tools leave within text."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decode_text(content: bytes, errors: str = "strict") -> str:
    """The text of a file: what its byte order mark says, else UTF-8; without the mark, also where it is repeated.

    Args:
        errors: as of `bytes.decode`; `surrogateescape` keeps bytes that are not UTF-8 as lone surrogates.

    Raises:
        ValueError: it is in another encoding; the message has the first byte that shows it.
    """
    mark, encoding = next(((mark, name) for mark, name in _MARKS if content.startswith(mark)), (b"", "utf-8"))
    try:
        return content[len(mark) :].decode(encoding, errors if encoding == "utf-8" else "strict").lstrip("\ufeff")
    except UnicodeDecodeError as error:
        place = len(mark) + error.start
        raise ValueError(f"not {encoding[:6].upper()}: byte 0x{content[place]:02x} at position {place}") from error


def trimmed(text: str) -> str:
    """A caption without white space and byte order marks at its ends."""
    return text.strip(_ENDS)


def parse_object(content: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: it is not one; the message says what it is.
    """
    text = decode_text(content)
    try:
        record: Any = json.loads(text)
    except RecursionError as error:
        raise ValueError("not JSON (nested too deeply)") from error
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    return cast(dict[str, Any], record)


def bounded_lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """The lines of a file; None for one that is longer than `MAX_TEXT_BYTES`."""
    while line := file.readline(MAX_TEXT_BYTES + 1):
        if len(line) <= MAX_TEXT_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_TEXT_BYTES)
        yield None


def as_utf8(file: BufferedReader) -> IO[bytes]:
    """A file of lines in UTF-8, whose own encoding a byte order mark may tell.

    Raises:
        ValueError: it is UTF-16 or UTF-32 and damaged, or of more than `MAX_TABLE_BYTES`.
    """
    start = file.peek(4)[:4]
    if not any(start.startswith(mark) for mark, encoding in _MARKS if encoding != "utf-8"):
        return file
    content = file.read(MAX_TABLE_BYTES + 1)
    if len(content) > MAX_TABLE_BYTES:
        raise ValueError(f"more than {MAX_TABLE_BYTES:,} bytes of UTF-16")
    return BytesIO(decode_text(content).encode("utf-8", "surrogatepass"))
