"""Choosing a caption among the texts of a record."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast

from lcm_distill.core.randomness import stable_hash
from lcm_distill.data.sources.interface import AGAIN, Annotation
from lcm_distill.formats.text import decode_text, parse_object, trimmed

CAPTION_SUFFIXES = (".cap", ".caption", ".txt", ".json")
"""Suffixes of files with the caption of the image of the same name; where several are there, later ones prevail."""

Texts = Sequence[tuple[str, bytes | Exception]]
"""Suffix and content of each caption file of an image, or why it cannot be read."""


class NoText(ValueError):
    """None of the fields of captions has text."""


@dataclass(frozen=True)
class Captions:
    """Which texts of a data set are its captions.

    Attributes:
        shares: weights by field, one of which is drawn. A dot separates the names of nested records, `Task2.Caption`,
            unless the record has a field of that whole name.
        every: each text of these fields makes a sample of its own, and none is drawn.
        suffixes: what follows an image's name, without its own suffix, in the names of its caption files; later ones
            prevail. A file whose suffix ends in `.json` is a JSON object, any other is text.
    """

    shares: Mapping[str, float]
    every: bool = False
    suffixes: Sequence[str] = CAPTION_SUFFIXES

    def annotations(self, sample_id: str, path: str, record: Mapping[str, Any]) -> Iterator[Annotation]:
        """The samples of an image, whose fields are `record`.

        Raises:
            NoText: no field has text.
        """
        if not self.every:
            return iter([Annotation(sample_id, path, choose_caption(record, self.shares, sample_id))])
        texts = [text for field in self.shares for text in texts_of(look_up(record, field))]
        if not texts:
            raise NoText(f"no {' or '.join(self.shares)}")
        return numbered(sample_id, path, texts)

    def annotations_of_files(
        self, sample_id: str, path: str, files: Texts, text: str, key: str, known: Mapping[str, Any] | None = None
    ) -> Iterator[Annotation]:
        """The samples of an image that has caption files: `annotations` of all their fields.

        Args:
            files: the later ones prevail.
            text: name of the field that a file of text becomes.
            key: name of the image, under which a JSON object may have its fields, or its text.
            known: fields from elsewhere, over which those of the files prevail.

        Raises:
            NoText: no field has text.
            ValueError: the same; the message is about the first file that cannot be used.
        """
        record, flaws = dict(known or {}), list[str]()
        for suffix, content in files:
            try:
                if isinstance(content, Exception):
                    raise ValueError(str(content))
                fields = _read_fields(suffix, content, text, key)
                record |= {name: value for name, value in fields.items() if value is not None}
            except ValueError as error:
                flaws.append(f"its {suffix} is unusable: {error}")
        try:
            return self.annotations(sample_id, path, record)
        except NoText:
            if flaws:
                raise ValueError(flaws[0]) from None
            raise

    def others(self, record: Mapping[str, Any], image: str) -> list[str]:
        """The fields with text of a record that has none of those of captions, but for that of the image's path."""
        if any(name in record for field in self.shares for name in (field, field.partition(".")[0])):
            return []
        return [name for name, value in record.items() if name != image and texts_of(value)]

    def files_among(self, names: Iterable[str]) -> dict[tuple[str, str], str]:
        """The caption files among names, by the name without suffix that their image has, and suffix."""
        return {(stem, suffix): name for name in names for stem, suffix in self.split(name)}

    def split(self, name: str) -> Iterator[tuple[str, str]]:
        """Each way to take a name for that of a caption file: what precedes a suffix, in any case, and the suffix."""
        lower = name.lower()
        for suffix in self.suffixes:
            if lower.endswith(suffix.lower()):
                yield name[: len(name) - len(suffix)], suffix


def numbered(sample_id: str, path: str, texts: Iterable[str]) -> Iterator[Annotation]:
    """A sample for each of an image's distinct captions; the first has the image's identifier itself."""
    first, *others = dict.fromkeys(texts)
    yield Annotation(sample_id, path, first)
    for number, text in enumerate(others, start=2):
        yield Annotation(f"{sample_id}{AGAIN}{number}", path, text, first)


def choose_caption(record: Mapping[str, Any], shares: Mapping[str, float], sample_id: str) -> str:
    """The text of a field of `record` that is drawn at random, as a function of `sample_id` only.

    Where that field has no text, the first one that has is taken. Of a list of texts one is drawn in the same way.

    Args:
        shares: as of `Captions`.

    Raises:
        NoText: no field has text.
    """
    fields = [_drawn(shares, sample_id), *shares]
    for value in (look_up(record, field) for field in fields):
        if texts := texts_of(value):
            listed = isinstance(value, list)
            return texts[stable_hash(f"caption in the list of {sample_id}") % len(texts)] if listed else texts[0]
    raise NoText(f"no {' or '.join(shares)}")


def look_up(record: Any, field: str) -> Any:
    """The value of a field, whose name may lead through nested records; None if there is none."""
    names = [field] if isinstance(record, Mapping) and field in record else field.split(".")
    value: Any = cast(Any, record)
    for name in names:
        value = cast(Mapping[str, Any], value).get(name) if isinstance(value, Mapping) else None
    return value


def texts_of(value: Any) -> list[str]:
    """The texts of a field: its own, or those of a list; blank ones are none."""
    values = cast(list[Any], value) if isinstance(value, list) else [value]
    return [trimmed(text) for text in values if isinstance(text, str) and trimmed(text)]


def _read_fields(suffix: str, content: bytes, text: str, key: str) -> dict[str, Any]:
    """The fields of a caption file: those of its JSON object, or the whole of a file of text.

    Raises:
        ValueError: it is no JSON object, or not UTF-8 or marked as another encoding.
    """
    if not suffix.lower().endswith(".json"):
        return {text: decode_text(content)}
    fields = parse_object(content)
    own = fields.get(key)
    if isinstance(own, str):
        return {text: own, **fields}
    return {**fields, **cast(dict[str, Any], own)} if isinstance(own, dict) else fields


def _drawn(shares: Mapping[str, float], sample_id: str) -> str:
    bounds = list(accumulate(shares.values()))
    point = stable_hash(f"caption of {sample_id}") / 2**63 * bounds[-1]
    return list(shares)[min(bisect_right(bounds, point), len(bounds) - 1)]
