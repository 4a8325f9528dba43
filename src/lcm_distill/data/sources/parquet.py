# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false, reportUnknownVariableType=false
"""Parquet files with a column of image bytes and columns of text, as in data sets of the hub."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.core.errors import UserError
from lcm_distill.data.sources.captions import choose_caption
from lcm_distill.data.sources.files import group_by_parent
from lcm_distill.data.sources.interface import Annotation, BadAnnotation, UnusableImage

BATCH_ROWS = 256


class ParquetImages:
    """All `.parquet` files below a folder.

    Args:
        captions: columns that captions come from, with their weights.
    """

    def __init__(self, root: Path, captions: Mapping[str, float]) -> None:
        self.root, self.captions = root, captions

    def annotations(self) -> Iterator[Annotation | BadAnnotation]:
        """Every row of every file.

        Raises:
            UserError: there is no file, or a file has none of the caption columns or no column of images.
        """
        files = sorted(self.root.rglob("*.parquet"))
        if not files:
            raise UserError(f"{self.root} holds no .parquet file: set data.root to their folder")
        for path in files:
            yield from self._annotations_of(path)

    def read(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
        """Images in order of row. A path is `file.parquet/row`."""
        for name, run in group_by_parent(paths):
            yield from _read_rows(self.root / name, {int(PurePosixPath(path).name): path for path in run})

    def file_of(self, path: str) -> Path:
        """The Parquet file."""
        return (self.root / path).parent

    def _annotations_of(self, path: Path) -> Iterator[Annotation | BadAnnotation]:
        where = path.relative_to(self.root).as_posix()
        file = pq.ParquetFile(path)
        _image_column(path, file.schema_arrow)
        columns = {field.partition(".")[0] for field in self.captions} & set(file.schema_arrow.names)
        if not columns:
            raise UserError(f"{path} has no column {' or '.join(self.captions)}: set data.captions to one it has")
        row = 0
        for batch in file.iter_batches(BATCH_ROWS, columns=sorted(columns)):
            for record in batch.to_pylist():
                name = f"{where}/{row}"
                try:
                    yield Annotation(name, name, choose_caption(record, self.captions, name))
                except ValueError as error:
                    yield BadAnnotation(name, f"malformed annotation: {error}")
                row += 1


def _read_rows(path: Path, wanted: Mapping[int, str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
    if not path.is_file():
        yield from ((called, UnusableImage("missing file")) for called in wanted.values())
        return
    file = pq.ParquetFile(path)
    column = _image_column(path, file.schema_arrow)
    first = 0
    for batch in file.iter_batches(BATCH_ROWS, columns=[column]):
        for offset, value in enumerate(batch[0] if any(first <= row < first + len(batch) for row in wanted) else ()):
            called = wanted.get(first + offset)
            if called is not None:
                content: Any = value.as_py()
                content = content["bytes"] if isinstance(content, dict) else content
                yield called, content if content else UnusableImage("missing file")
        first += len(batch)


def _image_column(path: Path, schema: pa.Schema) -> str:
    """The only column of bytes, or of the hub's `{bytes, path}`."""
    found = [field.name for field in schema if _holds_images(field.type)]
    if len(found) != 1:
        raise UserError(f"{path} has {len(found)} columns of bytes, where one column of images is looked for")
    return found[0]


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
