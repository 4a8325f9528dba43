"""Where foreign records enter: whatever a source hands over becomes usable, or says why not."""

import re
from collections.abc import Iterator
from typing import Any

from lcm_distill.data.sources.image_files import is_missing, leaves_root
from lcm_distill.data.sources.interface import MISSING, Annotation, BadAnnotation, LeftOut, Record, Source

MAX_CAPTION = 100_000
"""Characters of the longest caption that is taken; text encoders read some hundreds."""
MAX_NAME = 4_096
"""Characters of the longest path and identifier, which is the longest path of Linux."""
OUTSIDE = "path leaves the data set"
_DETAILS = re.compile(
    r": byte 0x[0-9a-f]{2} at position \d+|: lone surrogate U\+[0-9A-F]+ at position \d+| at position \d+|"
    r": line \d+ column \d+ \(char \d+\)|(?<=too small: )\d+x\d+, |(?<= )[\d,]+ characters, (?=more than)"
)
"""What differs between records that have the same flaw."""
SHOWN = 500
"""Characters of a reason or of an unusable name that the manifest keeps."""


def checked(source: Source) -> Iterator[Record]:
    """The records of a source: annotations can be stored and read back, and the reasons of the others as well.

    A caption keeps control characters other than NUL: whoever prints it must replace them. The reason of a record that
    cannot be used says so where its image is a missing file as well.
    """
    for record in source.annotations():
        match record:
            case Annotation(_, path):
                flaw = _flaw(record)
                image = None if flaw == OUTSIDE else path
                yield record if flaw is None else rejected(source, path, f"malformed annotation: {flaw}", image)
            case BadAnnotation(where, error, image):
                yield rejected(source, where, error, image)
            case LeftOut(where, reason, image):
                yield LeftOut(readable(where), readable(reason), image)


def rejected(source: Source, where: str, error: str, image: str | None) -> BadAnnotation:
    """A record that cannot be used, as of `BadAnnotation`, whose reason says so if its image is a missing file."""
    if image is None:
        return BadAnnotation(readable(where), readable(error))
    missing = is_missing(source.file_of(image)) and not error.startswith(MISSING)
    return BadAnnotation(readable(where), readable(f"{MISSING}; {error}" if missing else error), readable(image))


def without_details(reason: str) -> str:
    """What a reason says of all records that have it: without positions, sizes and lengths."""
    return _DETAILS.sub("", reason)


def readable(text: Any) -> str:
    """Text that UTF-8 can spell, of bounded length: bytes that are no text are escaped, as Python spells them."""
    words = str(text)
    try:
        spelt = words.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        spelt = words.encode("utf-8", "backslashreplace").decode()
    return spelt if len(spelt) <= SHOWN else f"{spelt[: SHOWN - 4]} ..."


def _flaw(annotation: Annotation) -> str | None:
    """Why an annotation cannot be used; None if it can."""
    for name, value, limit in (
        ("identifier", annotation.sample_id, MAX_NAME),
        ("path", annotation.path, MAX_NAME),
        ("caption", annotation.caption, MAX_CAPTION),
    ):
        if (flaw := _flaw_of_text(value, limit)) is not None:
            return f"{name} {flaw}"
    return OUTSIDE if leaves_root(annotation.path) else None


def _flaw_of_text(value: Any, limit: int) -> str | None:
    if not isinstance(value, str):
        return f"is {type(value).__name__}, not text"
    if not value.strip():
        return "is empty"
    if len(value) > limit:
        return f"has {len(value):,} characters, more than {limit:,}"
    if "\0" in value:
        return f"has a NUL at position {value.index(chr(0))}"
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        raw = 0xDC80 <= code <= 0xDCFF  # how Python keeps a byte of a name that is not UTF-8
        what = f"not UTF-8: byte 0x{code - 0xDC00:02x}" if raw else f"not text: lone surrogate U+{code:04X}"
        return f"is {what} at position {error.start}"
    return None
