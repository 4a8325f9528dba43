# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false, reportUnknownVariableType=false
"""Parquet files with a column of image bytes and columns of text, as in data sets of the hub."""

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.core.errors import UserError, one_line
from lcm_distill.core.regular_files import open_regular
from lcm_distill.core.words import counted
from lcm_distill.data.sources.captions import Captions
from lcm_distill.data.sources.file_tree import ALL_ARCHIVES, Tree, is_image, not_named, not_read, walk
from lcm_distill.data.sources.image_files import group_by_parent, is_missing, place_below, read_files
from lcm_distill.data.sources.interface import DUPLICATE, MISSING, BadAnnotation, Record
from lcm_distill.formats.images import MAX_IMAGE_BYTES, UnusableImage
from lcm_distill.formats.tables import Fields, batch_records

BATCH_ROWS = 256
DAMAGE = (pa.ArrowException, OSError, ValueError, NotImplementedError)
"""Exceptions of reading a damaged file."""


SUFFIXES = (".parquet", ".pq", ".parq")
"""Suffixes of Parquet files, in lower case."""
UNREAD = (".arrow", ".feather", ".ipc", ".orc", ".avro", ".parquet.gz", ".parquet.zst")
"""Suffixes of tables of other kinds, in lower case."""


class ParquetImages:
    """All Parquet files (`SUFFIXES`) below a folder, and the images beside them that rows name instead of holding them.

    Args:
        captions: columns that captions come from.
        image: the column of images; None is the only one of bytes.
    """

    def __init__(self, root: Path, captions: Captions, image: str | None = None) -> None:
        self.root, self.captions, self.image = root, captions, image
        self._empty: tuple[str, set[int]] = "", set()

    def annotations(self) -> Iterator[Record]:
        """Every row of every file.

        Raises:
            UserError: there is no file, or none that can be read has one of the caption columns and a column of images.
        """
        tree = walk(self.root, lambda path: is_image(path) or path.lower().endswith((*SUFFIXES, *UNREAD)))
        files = [path for path in tree.files if path.lower().endswith(SUFFIXES)]
        if not files:
            raise UserError(f"{self.root} holds no {' or '.join(SUFFIXES)} file: set data.root to their folder")
        yield from tree.bad
        lacks = {path: flaw for path in files if (flaw := self._lack(path)) is not None}
        if len(lacks) == len(files) and not all(damaged for damaged, _ in lacks.values()):
            raise UserError(
                next(f"{self.root / path} {flaw}" for path, (damaged, flaw) in lacks.items() if not damaged)
            )
        named = dict[str, str]()
        for path in files:
            if path in lacks:
                yield BadAnnotation(path, lacks[path][1])
            else:
                yield from self._annotations_of(path, self._named_by(path, tree), named)
        yield from not_read(tree, (*UNREAD, *ALL_ARCHIVES), "table of a kind that is not read")
        yield from not_named(tree, named, "not in a Parquet file")

    def read(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
        """Images in order of row. A path is `file.parquet/row`."""
        for name, run in group_by_parent(paths):
            yield from self._read_rows(name, {int(PurePosixPath(path).name): path for path in run})

    def file_of(self, path: str) -> Path:
        """The Parquet file, or the image beside it that the row names."""
        table, _, row = path.rpartition("/")
        if not row.isdecimal() or not table:
            return self.root / path
        if table not in self._images:
            self._images[table] = self._named_by(table, self._tree)
        image = self._images[table].get(int(row))
        return self.root / (image or table)

    def is_empty(self, path: str) -> bool:
        """Whether a row has no image: no bytes, nor the path of a file; as far as statistics of the file tell."""
        table, _, row = path.rpartition("/")
        if self._empty[0] != table:
            self._empty = table, self._empty_rows(table)
        return int(row) in self._empty[1]

    def _empty_rows(self, table: str) -> set[int]:
        try:
            with _open(self.root / table) as file:
                column = _image_column(file.schema_arrow, self.image)
                lacking = _lacking(file, column, range(file.metadata.num_rows))
        except (UserError, *DAMAGE):
            return set()
        places = {row: self._place(table, path) for row, path in lacking.items()}
        return {row for row, place in places.items() if place is None or is_missing(self.root / place)}

    @cached_property
    def _tree(self) -> Tree:
        return walk(self.root)

    @cached_property
    def _images(self) -> dict[str, dict[int, str]]:
        return {}

    def _named_by(self, path: str, tree: Tree) -> dict[int, str]:
        """The images of a tree that rows of a file name, by row, where they have no bytes of their own."""
        try:
            with _open(self.root / path) as file:
                column = _image_column(file.schema_arrow, self.image)
                if not tree.images or not _has_paths(file.schema_arrow.field(column).type):
                    return {}
                names = _rows_of(file, f"{column}.path")
                places = {row: tree.place_of(place) for row, name in names if (place := self._place(path, name))}
                images = set(tree.images).intersection(places.values())
                wanted = {row for row, place in places.items() if place in images}
                lacking = _lacking(file, column, wanted, all_groups=True)
                return {row: place for row, place in places.items() if row in lacking}
        except (UserError, *DAMAGE):
            return {}

    def _place(self, table: str, name: Any) -> str | None:
        """The path of the image that a row names."""
        return place_below(self.root, table.rpartition("/")[0], name) if isinstance(name, str) and name else None

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

    def _annotations_of(self, path: str, images: Mapping[int, str], named: dict[str, str]) -> Iterator[Record]:
        """The rows of a file.

        Args:
            images: that they name, by row. named: the first row that names an image, by its path; it is added to.
        """
        row, flaws, lacking = 0, dict[int, str](), dict[int, Any]()
        try:
            with _open(self.root / path) as file:
                for record in self._texts(file):
                    name = f"{path}/{row}"
                    first = named.setdefault(images[row], name) if row in images else name
                    try:
                        if first == name:
                            yield from self._annotations(name, record)
                        else:
                            yield BadAnnotation(name, DUPLICATE, first)
                    except ValueError as error:
                        flaws[row] = f"malformed annotation: {error}"
                    row += 1
                lacking = _lacking(file, _image_column(file.schema_arrow, self.image), flaws.keys() - images.keys())
        except DAMAGE as error:
            yield BadAnnotation(path, f"{_damaged(path, error)} (after {counted(row, 'row')})")
        for row, flaw in flaws.items():
            yield BadAnnotation(f"{path}/{row}", f"{MISSING}; {flaw}" if row in lacking else flaw, f"{path}/{row}")

    def _texts(self, file: pq.ParquetFile) -> Iterator[Fields]:
        """The columns of captions, row by row."""
        columns = _caption_columns(file.schema_arrow, self.captions.shares)
        for batch in file.iter_batches(BATCH_ROWS, columns=columns):
            yield from batch_records(batch)

    def _annotations(self, name: str, record: Fields) -> Iterator[Record]:
        if isinstance(record, ValueError):
            raise record
        return self.captions.annotations(name, name, record)

    def _read_rows(self, table: str, wanted: Mapping[int, str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
        left = dict(wanted)
        try:
            with _open(self.root / table) as file:
                for row, content in _contents(file, _image_column(file.schema_arrow, self.image), left.keys()):
                    yield left.pop(row), self._content(table, content)
            reason = "missing row"
        except FileNotFoundError:
            reason = MISSING
        except (UserError, *DAMAGE) as error:
            reason = _damaged(table, error)
        yield from ((called, UnusableImage(reason)) for called in left.values())

    def _content(self, table: str, content: Any) -> bytes | UnusableImage:
        """The bytes of a row's image, or of the file that the row names in their place."""
        own, path = _parts(content)
        if own:
            return own if len(own) <= MAX_IMAGE_BYTES else UnusableImage(f"more than {MAX_IMAGE_BYTES:,} bytes")
        place = self._place(table, path)
        if place is None:
            return UnusableImage(MISSING)
        return next(content for _, content in read_files(self.root, [place]))


def _has_paths(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and any(field.name == "path" for field in kind)


def _rows_of(file: pq.ParquetFile, column: str) -> Iterator[tuple[int, Any]]:
    """The only value of each record of a column of records, of which `column` names one field, by row."""
    values = (value for batch in file.iter_batches(columns=[column]) for value in batch[0].to_pylist())
    yield from ((row, None if value is None else next(iter(value.values()))) for row, value in enumerate(values))


def _lacking(file: pq.ParquetFile, column: str, wanted: Collection[int], all_groups: bool = False) -> dict[int, Any]:
    """Those of the rows whose image is null or has no bytes, with the path that it has instead.

    Args:
        all_groups: read groups of rows as well whose statistics tell of no null and no image without bytes; where the
            latter are among images of more than some kB, statistics do not tell.
    """
    first, found = 0, dict[int, Any]()
    for group in range(file.num_row_groups if wanted else 0):
        known = file.metadata.row_group(group)
        here = [row for row in range(known.num_rows) if first + row in wanted]
        if here and (all_groups or _may_lack(known, column)):
            for row, content in _contents(file, column, here, [group]):
                own, path = _parts(content)
                found |= {} if own else {first + row: path}
        first += known.num_rows
    return found


def _may_lack(group: pq.RowGroupMetaData, column: str) -> bool:
    columns = (group.column(number) for number in range(group.num_columns))
    own = [known.statistics for known in columns if known.path_in_schema in (column, f"{column}.bytes")]
    return not all(known is not None and known.has_null_count and _are_whole(known) for known in own)


def _are_whole(known: Any) -> bool:
    """Whether statistics tell of no null, and do not tell of an image without bytes."""
    return known.null_count == 0 and not (known.has_min_max and not known.min)


def _parts(content: Any) -> tuple[Any, Any]:
    """The bytes and the path of an image, of which a column of bytes has no path."""
    return (content.get("bytes"), content.get("path")) if isinstance(content, dict) else (content, None)


def _contents(
    file: pq.ParquetFile, column: str, wanted: Iterable[int], groups: list[int] | None = None
) -> Iterator[tuple[int, Any]]:
    """Those of the rows, of the file or of groups of it, that are wanted now, with what their image's column has."""
    first, rows = 0, set(wanted)
    for batch in file.iter_batches(BATCH_ROWS, groups, [column]):
        here = sorted(row for row in range(first, first + len(batch)) if row in rows)
        for row in here:
            yield row, batch[0][row - first].as_py()
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
