# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false, reportUnknownVariableType=false
"""Parquet files with a column of image bytes and columns of text, as in data sets of the hub."""

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.core.errors import UserError, one_line
from lcm_distill.core.regular_files import open_regular
from lcm_distill.data.sources.captions import Captions
from lcm_distill.data.sources.file_tree import is_image, not_named, walk
from lcm_distill.data.sources.image_files import group_by_parent
from lcm_distill.data.sources.interface import BadAnnotation, Record
from lcm_distill.formats.images import MAX_IMAGE_BYTES, UnusableImage
from lcm_distill.formats.tables import Fields, batch_records

BATCH_ROWS = 256
DAMAGE = (pa.ArrowException, OSError, ValueError, NotImplementedError)
"""Exceptions of reading a damaged file."""


class ParquetImages:
    """All `.parquet` files below a folder.

    Args:
        captions: columns that captions come from.
        image: the column of images; None is the only one of bytes.
    """

    def __init__(self, root: Path, captions: Captions, image: str | None = None) -> None:
        self.root, self.captions, self.image = root, captions, image

    def annotations(self) -> Iterator[Record]:
        """Every row of every file.

        Raises:
            UserError: there is no file, or none that can be read has one of the caption columns and a column of images.
        """
        tree = walk(self.root, lambda path: is_image(path) or path.endswith(".parquet"))
        files = [path for path in tree.files if path.endswith(".parquet")]
        if not files:
            raise UserError(f"{self.root} holds no .parquet file: set data.root to their folder")
        yield from tree.bad
        lacks = {path: flaw for path in files if (flaw := self._lack(path)) is not None}
        if len(lacks) == len(files) and not all(damaged for damaged, _ in lacks.values()):
            raise UserError(
                next(f"{self.root / path} {flaw}" for path, (damaged, flaw) in lacks.items() if not damaged)
            )
        for path in files:
            if path in lacks:
                yield BadAnnotation(path, lacks[path][1])
            else:
                yield from self._annotations_of(path)
        yield from not_named(tree, set(), "not in a Parquet file")

    def read(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
        """Images in order of row. A path is `file.parquet/row`."""
        for name, run in group_by_parent(paths):
            yield from self._read_rows(self.root / name, {int(PurePosixPath(path).name): path for path in run})

    def file_of(self, path: str) -> Path:
        """The Parquet file."""
        return (self.root / path).parent

    def _lack(self, path: str) -> tuple[bool, str] | None:
        """What a file lacks, after whether it is damaged; None if it can be used."""
        try:
            with _open(self.root / path) as file:
                _image_column(file.schema_arrow, self.image)
                if not _caption_columns(file.schema_arrow, self.captions.shares):
                    return False, f"has no column {' or '.join(self.captions.shares)}: set data.captions to one it has"
        except UserError as error:
            return False, str(error)
        except DAMAGE as error:
            return True, _damaged(path, error)
        return None

    def _annotations_of(self, path: str) -> Iterator[Record]:
        row = 0
        try:
            with _open(self.root / path) as file:
                columns = _caption_columns(file.schema_arrow, self.captions.shares)
                for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                    for record in batch_records(batch):
                        yield from self._annotations(f"{path}/{row}", record)
                        row += 1
        except DAMAGE as error:
            yield BadAnnotation(path, f"{_damaged(path, error)} (after {row:,} rows)")

    def _annotations(self, name: str, record: Fields) -> Iterator[Record]:
        try:
            if isinstance(record, ValueError):
                raise record
            yield from self.captions.annotations(name, name, record)
        except ValueError as error:
            yield BadAnnotation(name, f"malformed annotation: {error}", name)

    def _read_rows(self, path: Path, wanted: Mapping[int, str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
        left = dict(wanted)
        try:
            with _open(path) as file:
                for row, content in _contents(file, _image_column(file.schema_arrow, self.image), left.keys()):
                    yield left.pop(row), content
            reason = "missing row"
        except FileNotFoundError:
            reason = "missing file"
        except (UserError, *DAMAGE) as error:
            reason = _damaged(path.name, error)
        yield from ((called, UnusableImage(reason)) for called in left.values())


def _contents(file: pq.ParquetFile, column: str, wanted: Iterable[int]) -> Iterator[tuple[int, bytes | UnusableImage]]:
    """Those of the rows that are wanted now, with the bytes of their image."""
    first, rows = 0, set(wanted)
    for batch in file.iter_batches(BATCH_ROWS, columns=[column]):
        here = sorted(row for row in range(first, first + len(batch)) if row in rows)
        for row in here:
            content: Any = batch[0][row - first].as_py()
            content = content["bytes"] if isinstance(content, dict) else content
            if content and len(content) > MAX_IMAGE_BYTES:
                yield row, UnusableImage(f"more than {MAX_IMAGE_BYTES:,} bytes")
            else:
                yield row, content or UnusableImage("missing file")
        first += len(batch)


@contextmanager
def _open(path: Path) -> Generator[pq.ParquetFile]:
    with open_regular(path) as content, pq.ParquetFile(content) as file:
        yield file


def _damaged(name: str, error: Exception) -> str:
    return f"damaged file {PurePosixPath(name).name}: {one_line(error)}"


def _caption_columns(schema: pa.Schema, captions: Mapping[str, float]) -> list[str]:
    """The columns that captions come from: each by its whole name, else by what precedes its first dot."""
    names = set(schema.names)
    return sorted({name for field in captions for name in (field, field.partition(".")[0]) if name in names})


def _image_column(schema: pa.Schema, chosen: str | None) -> str:
    """The chosen column, or the only one of bytes or of the hub's `{bytes, path}`.

    Raises:
        UserError: there is no such column, or several; the message lacks the name of the file.
    """
    found = [field.name for field in schema if _holds_images(field.type) and chosen in (None, field.name)]
    if len(found) == 1:
        return found[0]
    if chosen is not None:
        raise UserError(f"has no column {chosen} of bytes: set data.image_column to one that it has")
    if not found:
        raise UserError("has 0 columns of bytes: set data.root to a folder of Parquet files that hold images")
    columns = ", ".join(found)
    raise UserError(f"has {len(found)} columns of bytes ({columns}): name that of images with --image-column")


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
