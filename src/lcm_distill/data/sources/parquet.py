# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false, reportUnknownVariableType=false
"""Parquet files with a column of image bytes and columns of text, as in data sets of the hub."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.core.errors import UserError, one_line
from lcm_distill.core.words import counted
from lcm_distill.data.sources.captions import Captions
from lcm_distill.data.sources.file_tree import ALL_ARCHIVES, UNREAD_ARCHIVE, Tree, is_image, not_named, not_read, walk
from lcm_distill.data.sources.image_files import group_by_parent, is_missing, place_below, read_files
from lcm_distill.data.sources.interface import DUPLICATE, MISSING, BadAnnotation, Record
from lcm_distill.formats.image_tables import (
    BATCH_ROWS,
    DAMAGE,
    field_values,
    has_paths,
    image_cells,
    image_column,
    image_parts,
    open_table,
    rows_without_bytes,
)
from lcm_distill.formats.images import MAX_IMAGE_BYTES, UnusableImage
from lcm_distill.formats.tables import Fields, batch_records

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
        self._lacking: tuple[str, dict[int, str]] = "", {}

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
        yield from not_read(tree, UNREAD, "table of a kind that is not read")
        yield from not_read(tree, ALL_ARCHIVES, UNREAD_ARCHIVE)
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

    def lack(self, path: str) -> str | None:
        """Why a row has no image: no bytes, nor the path of a file; as far as statistics of the file tell."""
        table, _, row = path.rpartition("/")
        if self._lacking[0] != table:
            self._lacking = table, self._lacking_rows(table)
        return self._lacking[1].get(int(row))

    def _lacking_rows(self, table: str) -> dict[int, str]:
        try:
            with open_table(self.root / table) as file:
                column = image_column(file.schema_arrow, self.image)
                lacking = rows_without_bytes(file, column, range(file.metadata.num_rows))
        except (UserError, *DAMAGE):
            return {}
        places = {row: self._place(table, path) for row, path in lacking.items()}
        gone = {row for row, place in places.items() if place is None or is_missing(self.root / place)}
        return {row: MISSING if places[row] else _unplaced(lacking[row]) for row in gone}

    @cached_property
    def _tree(self) -> Tree:
        return walk(self.root)

    @cached_property
    def _images(self) -> dict[str, dict[int, str]]:
        return {}

    def _named_by(self, path: str, tree: Tree) -> dict[int, str]:
        """The images of a tree that rows of a file name, by row, where they have no bytes of their own."""
        try:
            with open_table(self.root / path) as file:
                column = image_column(file.schema_arrow, self.image)
                if not tree.images or not has_paths(file.schema_arrow.field(column).type):
                    return {}
                names = field_values(file, f"{column}.path")
                places = {row: tree.place_of(place) for row, name in names if (place := self._place(path, name))}
                images = set(tree.images).intersection(places.values())
                wanted = {row for row, place in places.items() if place in images}
                lacking = rows_without_bytes(file, column, wanted, all_groups=True)
                return {row: place for row, place in places.items() if row in lacking}
        except (UserError, *DAMAGE):
            return {}

    def _place(self, table: str, name: Any) -> str | None:
        """The path of the image that a row names."""
        return place_below(self.root, table.rpartition("/")[0], name) if isinstance(name, str) and name else None

    def _lack(self, path: str) -> tuple[bool, str] | None:
        """What a file lacks, after whether it is damaged; None if it can be used."""
        try:
            with open_table(self.root / path) as file:
                image_column(file.schema_arrow, self.image)
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
            with open_table(self.root / path) as file:
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
                lacking = rows_without_bytes(
                    file, image_column(file.schema_arrow, self.image), flaws.keys() - images.keys()
                )
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
            with open_table(self.root / table) as file:
                for row, content in image_cells(file, image_column(file.schema_arrow, self.image), left.keys()):
                    yield left.pop(row), self._content(table, content)
            reason = "missing row"
        except FileNotFoundError:
            reason = MISSING
        except (UserError, *DAMAGE) as error:
            reason = _damaged(table, error)
        yield from ((called, UnusableImage(reason)) for called in left.values())

    def _content(self, table: str, content: Any) -> bytes | UnusableImage:
        """The bytes of a row's image, or of the file that the row names in their place."""
        own, path = image_parts(content)
        if own:
            return own if len(own) <= MAX_IMAGE_BYTES else UnusableImage(f"more than {MAX_IMAGE_BYTES:,} bytes")
        place = self._place(table, path)
        if place is None:
            return UnusableImage(_unplaced(path))
        return next(content for _, content in read_files(self.root, [place]))


def _unplaced(path: Any) -> str:
    """Why a row without bytes has no image, whose path tells none below the root."""
    return f"{MISSING}: path {path} leaves the data set" if isinstance(path, str) and path else MISSING


def _damaged(name: str, error: Exception) -> str:
    return f"damaged file {PurePosixPath(name).name}: {one_line(error)}"


def _caption_columns(schema: pa.Schema, captions: Mapping[str, float]) -> list[str]:
    """The columns that captions come from: each by its whole name, else by what precedes its first dot."""
    names = set(schema.names)
    return sorted({name for field in captions for name in (field, field.partition(".")[0]) if name in names})
