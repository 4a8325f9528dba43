"""Text in files of unknown origin: its encoding, its JSON, and its lines."""

import codecs
import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from io import BufferedReader
from typing import IO, Any, cast

from lcm_distill.core.json import parse_json

MAX_TEXT_BYTES = 2**24
"""The longest caption file, or line of annotations, that is read."""
MAX_TABLE_BYTES = 2**30
"""The longest file of annotations that is read as a whole."""

_ENDS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\ufeff"
"""White space, and the byte order mark that other tools leave within text."""
_INVISIBLE = ("Cf", "Zs", "Zl", "Zp")
"""Unicode's categories of characters that only format or separate, such as U+200B."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_DAMAGED = "lcm_distill.damaged"
"""Handler of errors that puts a lone surrogate, which no text holds, in the place of what is damaged."""
_TOO_LONG = ValueError(f"a line of more than {MAX_TEXT_BYTES:,} bytes")


def decode_text(content: bytes, errors: str = "strict") -> str:
    """The text of a file: what its byte order mark says, else UTF-8; without the mark, also where it is repeated.

    Args:
        errors: `strict`, or `surrogateescape`, which keeps what is not text as lone surrogates.

    Raises:
        ValueError: it is in another encoding; the message has the first byte that shows it.
    """
    mark, encoding = _encoding(content)
    if encoding != "utf-8" and errors != "strict":
        return "".join(line.decode(encoding, _DAMAGED) for _, line in _wide_lines(content, len(mark), encoding))
    try:
        return content[len(mark) :].decode(encoding, errors).lstrip("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(_flaw(error, encoding, len(mark))) from error


def trimmed(text: str) -> str:
    """A caption without white space and byte order marks at its ends; of invisible characters alone nothing is left."""
    return "" if all(map(_is_invisible, text)) else text.strip(_ENDS)


def _is_invisible(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) in _INVISIBLE


def parse_object(content: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: it is not one; the message says what it is.
    """
    text = decode_text(content)
    try:
        record = parse_json(text)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(record, dict):
        raise ValueError(f"not a JSON object but {kind_of(record)}")
    return cast(dict[str, Any], record)


def kind_of(value: Any) -> str:
    """What a JSON value is, in words: `null`, `a number`."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    kinds = {dict: "an object", list: "a list", str: "a text"}
    return next((words for kind, words in kinds.items() if isinstance(value, kind)), "a number")


def list_in(record: Mapping[str, Any], key: str) -> list[Any]:
    """The list under a key of a JSON object.

    Raises:
        ValueError: there is none; the message says what is there instead.
    """
    if key not in record:
        raise ValueError(f"it has no {key!r}")
    if not isinstance(record[key], list):
        raise ValueError(f"its {key!r} is {kind_of(record[key])}, not a list")
    return record[key]


def name_in(value: Any, field: str) -> str:
    """The value of a field that should name a file.

    Raises:
        ValueError: it does not; the message names the field.
    """
    if isinstance(value, str | None) and not value:
        raise ValueError(f"no {field}")
    if not isinstance(value, str):
        raise ValueError(f"{field} is {kind_of(value)}, not a text")
    return value


def read_lines(file: BufferedReader) -> Iterator[bytes | ValueError]:
    """The lines of a file in UTF-8, whose own encoding a byte order mark may tell.

    In place of one that is damaged, or longer than `MAX_TEXT_BYTES`, comes the error that says so.

    Raises:
        ValueError: it is UTF-16 or UTF-32 of more than `MAX_TABLE_BYTES`, or so damaged that lines cannot be told.
    """
    mark, encoding = _encoding(file.peek(4)[:4])
    if encoding == "utf-8":
        yield from _bounded_lines(file)
        return
    content = file.read(MAX_TABLE_BYTES + 1)
    if len(content) > MAX_TABLE_BYTES:
        raise ValueError(f"more than {MAX_TABLE_BYTES:,} bytes of {encoding[:6].upper()}")
    for place, line in _wide_lines(content, len(mark), encoding):
        try:
            yield line.decode(encoding).encode() if len(line) <= MAX_TEXT_BYTES else _TOO_LONG
        except UnicodeDecodeError as error:
            yield ValueError(_flaw(error, encoding, place))


def _bounded_lines(file: IO[bytes]) -> Iterator[bytes | ValueError]:
    while line := file.readline(MAX_TEXT_BYTES + 1):
        if len(line) <= MAX_TEXT_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_TEXT_BYTES)
        yield _TOO_LONG


def _wide_lines(content: bytes, start: int, encoding: str) -> Iterator[tuple[int, bytes]]:
    """The lines of UTF-16 or UTF-32 with their ends, after the position of each; one that is damaged is a line too.

    Raises:
        ValueError: bytes are missing, or too many, so that no line after them begins where a character does.
    """
    ends = "\n".encode(encoding)
    while start < len(content):
        place = _find(content, ends, start, lambda offset: offset % len(ends) == 0)
        stop = len(content) if place is None else place + len(ends)
        line = content[start:stop]
        shifted = _find(line, ends, 0, lambda offset: offset % len(ends) > 0)
        if shifted is not None and shifted + len(ends) < len(line) and not _is_text(line, encoding):
            raise ValueError(f"not {encoding[:6].upper()} from position {start} on, where no line ends")
        yield start, line
        start = stop


def _find(content: bytes, wanted: bytes, start: int, fits: Callable[[int], bool]) -> int | None:
    """Where `wanted` first stands at an offset from `start` that fits."""
    place = content.find(wanted, start)
    while place >= 0 and not fits(place - start):
        place = content.find(wanted, place + 1)
    return place if place >= 0 else None


def _is_text(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _encoding(start: bytes) -> tuple[bytes, str]:
    """The byte order mark that content starts with, and the encoding that it tells."""
    return next(((mark, name) for mark, name in _MARKS if start.startswith(mark)), (b"", "utf-8"))


def _flaw(error: UnicodeDecodeError, encoding: str, start: int) -> str:
    """The first byte that is not text, of content that stands at `start`."""
    byte = error.object[error.start]
    return f"not {encoding[:6].upper()}: byte 0x{byte:02x} at position {start + error.start}"


def _lone_surrogate(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\ud800", error.end


codecs.register_error(_DAMAGED, _lone_surrogate)
