"""Captions to generate images from, out of a file: a benchmark's, or one's own."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO
from itertools import groupby
from pathlib import Path
from typing import Any

from lcm_distill.core.errors import UserError
from lcm_distill.core.hashing import digest
from lcm_distill.core.randomness import permutation, uniform
from lcm_distill.core.regular_files import read_regular
from lcm_distill.core.words import counted
from lcm_distill.formats.text import list_in, parse_object, trimmed

COCO_SEED = 2014
"""Decides which images of COCO are taken, and which of an image's captions."""

MAX_PROMPTS_BYTES = 2**30
"""The largest file of captions that is read; MS-COCO's takes 65 MB."""


@dataclass(frozen=True)
class Prompt:
    """A caption to generate an image of.

    Attributes:
        image_id: unique in its set, 0 or more. Names the image and, with the seed, decides its noise.
        caption: not empty, without space around it.
        image: the real image that the caption belongs to, as the data set spells it; None if there is none at hand.
    """

    image_id: int
    caption: str
    image: str | None = None


Row = tuple[str, int | str, str]
"""Where in the file it stands, as messages name it, image id and caption."""


def read_prompts(path: Path) -> list[Prompt]:
    """All captions of a file, whose suffix says what it is.

    - `.csv`: text2image-benchmark's, with columns `image_id` and `text`.
    - `.json`: COCO's `captions_val2014.json`. One caption an image, in an order that `COCO_SEED` decides, so that the
      first 1,000 are among the first 30,000.
    - `.tsv`: PartiPrompts, with a column `Prompt`; nothing is quoted in it. Image ids count from 0.
    - `.txt`: one caption a line. Image ids count from 0.

    Raises:
        UserError: there is no such file, or it is not what its suffix says, has an empty caption or an image id twice;
            the message names the row.
    """
    if path.suffix not in READERS:
        raise UserError(
            f"{path}: captions come from a .csv with columns image_id,text, COCO's .json, PartiPrompts' .tsv or a .txt "
            "with one a line: convert it to one of them"
        )
    try:
        text = read_regular(path, MAX_PROMPTS_BYTES).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: give the path of a file of captions") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}): convert it") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a file of captions") from error
    return list(_checked(path, READERS[path.suffix](path, text)))


def _checked(path: Path, rows: Iterable[Row]) -> Iterator[Prompt]:
    seen: dict[int, str] = {}
    for where, number, caption in rows:
        try:
            image_id = int(number)
        except ValueError:
            image_id = -1
        if image_id < 0:
            raise UserError(f"{path}, {where}: image_id {number!r} is no number of 0 or more: correct it")
        if image_id in seen:
            raise UserError(f"{path}, {where}: image_id {image_id} is also in {seen[image_id]}: delete one of them")
        if not trimmed(caption):
            raise UserError(f"{path}, {where}: the caption is empty: write one, or delete it")
        seen[image_id] = where
        yield Prompt(image_id, caption.strip())
    if not seen:
        raise UserError(f"{path} holds no caption: give another file")


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    try:
        columns = _columns(path, next(reader, None) or [], ("image_id", "text"))
        for row in reader:
            where = f"line {reader.line_num}"
            if len(row) <= max(columns):
                raise UserError(
                    f"{path}, {where}: it has {counted(len(row), 'column')}, too few for the header: correct it"
                )
            yield where, row[columns[0]], row[columns[1]]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}: correct it") from error


def _tsv_rows(path: Path, text: str) -> Iterator[Row]:
    header, *lines = _lines(text)
    (column,) = _columns(path, header.split("\t"), ("Prompt",))
    for index, line in enumerate(lines):
        yield f"line {index + 2}", index, (line.split("\t") + [""] * column)[column]


def _text_rows(path: Path, text: str) -> Iterator[Row]:
    yield from ((f"line {index + 1}", index, line) for index, line in enumerate(_lines(text)))


def _coco_rows(path: Path, text: str) -> Iterator[Row]:
    try:
        found = list_in(parse_object(text.encode()), "annotations")
        records = sorted(_coco_record(place, record) for place, record in enumerate(found))
    except ValueError as error:
        raise UserError(f"{path} is not a file of COCO captions: {error}: give captions_val2014.json") from error
    _refuse_twice(path, [number for _, number, _ in records])
    images = [list(captions) for _, captions in groupby(records, key=lambda record: record[0])]
    for place in permutation(COCO_SEED, "order of pictures", 0, len(images)):
        captions = images[int(place)]
        draw = float(uniform(COCO_SEED, "caption of a picture", 0, [captions[0][0]]))
        image_id, number, caption = captions[int(draw * len(captions))]
        yield f"annotation {number}", image_id, caption


def _coco_record(place: int, record: Any) -> tuple[int, int, str]:
    """Image id, id and caption of an annotation.

    Raises:
        ValueError: it lacks one of them.
    """
    with suppress(ValueError, KeyError, TypeError):
        image, number, caption = int(record["image_id"]), int(record["id"]), record["caption"]
        if isinstance(caption, str):
            return image, number, caption
    raise ValueError(f"annotation {place} lacks a number as image_id or id, or a text as caption")


def _refuse_twice(path: Path, numbers: Iterable[int]) -> None:
    seen: set[int] = set()
    for number in numbers:
        if number in seen:
            raise UserError(f"{path}: two annotations have id {number}: delete one of them")
        seen.add(number)


def _lines(text: str) -> list[str]:
    """Lines without their ends; only line feeds end one, whatever else Unicode calls a line's end."""
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def _columns(path: Path, header: list[str], wanted: tuple[str, ...]) -> list[int]:
    names = [name.strip() for name in header]
    if absent := [name for name in wanted if name not in names]:
        raise UserError(
            f"{path}, line 1: the header is {','.join(names)!r} and lacks {absent[0]}: it must name {','.join(wanted)}"
        )
    return [names.index(name) for name in wanted]


READERS: dict[str, Callable[[Path, str], Iterator[Any]]] = {
    ".csv": _csv_rows,
    ".json": _coco_rows,
    ".tsv": _tsv_rows,
    ".txt": _text_rows,
}


def prompts_sha256(prompts: Sequence[Prompt]) -> str:
    """16 hex digits of image ids and captions in their order."""
    return digest([[prompt.image_id, prompt.caption] for prompt in prompts])


def prompt_source(source: str, prompts: Sequence[Prompt]) -> str:
    """Where prompts come from, as `evaluate.prompts` says, with 12 digits of their hash, as rows of figures name it."""
    return f"{Path(source).name}:{prompts_sha256(prompts)[:12]}"
