# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
"""Numbering a data set: the catalog of its samples and captions, whose rows stay what they are."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.data.cache.archive_members import count_members
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.catalog import CAPTIONS_FILE, EMPTY, SAMPLES_FILE, Catalog, Extension, extend_catalog
from lcm_distill.data.cache.catalog_files import forget_aside, is_aside, put_aside, put_back
from lcm_distill.data.cache.manifest_rows import CATALOG_TASK, rejected_row
from lcm_distill.data.sources.interface import DUPLICATE, Annotation, BadAnnotation, LeftOut, Record
from lcm_distill.data.sources.record_validation import checked, rejected
from lcm_distill.pipeline.atomic_writes import temporary_prefix
from lcm_distill.pipeline.manifest import OK, file_columns, part_name

log = logging.getLogger(__name__)


def open_catalog(cache: Cache) -> Catalog:
    """The catalog; the data set is numbered by the first call.

    Raises:
        DataError: the catalog or its manifest part is damaged.
        UserError: the cache was made with other settings, or there is no data set.
    """
    catalog = cache.find_catalog()
    if catalog is None:
        catalog, bad = number_annotations(cache)
        commit_catalog(cache, catalog, bad)
    return catalog


def number_annotations(cache: Cache) -> tuple[Catalog, list[BadAnnotation | LeftOut]]:
    """The catalog of what the data set contains now, and the annotations that are rejected and images left out.

    Raises:
        UserError: there is no data set.
    """
    extension, bad = extend_annotations(cache, EMPTY)
    return extension.catalog, bad


def extend_annotations(cache: Cache, known: Catalog) -> tuple[Extension, list[BadAnnotation | LeftOut]]:
    """A catalog extended by what the data set contains now, and as `number_annotations`; nothing is stored.

    Raises:
        UserError: there is no data set.
    """
    bad: list[BadAnnotation | LeftOut] = []
    source, fraction = cache.source, cache.config.data.valid_fraction
    cache.run.root.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=temporary_prefix(), dir=cache.run.root) as scratch:
        extension = extend_catalog(known, _usable(checked(source), bad), fraction, Path(scratch))
    return extension, bad + [rejected(source, path, DUPLICATE, path) for path in extension.repeated]


def commit_catalog(cache: Cache, catalog: Catalog, bad: Sequence[BadAnnotation | LeftOut]) -> None:
    """Write the catalog's files, and the manifest part with their hashes and the records that are no samples."""
    rows: list[dict[str, Any]] = []
    for name, table in ((SAMPLES_FILE, catalog.samples), (CAPTIONS_FILE, catalog.captions)):
        content = pa.BufferOutputStream()
        pq.write_table(table, content)
        file = cache.storage.put(name, [memoryview(content.getvalue())])
        rows.append({"kind": "catalog", "status": OK, **file_columns(file)})
    rows += [rejected_row(record) for record in bad]
    cache.manifest.commit(cache.catalog_task, rows, None)
    log.info(
        "numbered %d samples and %d distinct captions, rejected or left out %d records",
        len(catalog.samples), len(catalog.captions), len(bad),
    )  # fmt: skip


def replace_catalog(cache: Cache, catalog: Catalog, bad: Sequence[BadAnnotation | LeftOut]) -> None:
    """As `commit_catalog`, in the place of an earlier one, which every reader sees until it is done."""
    put_aside(cache.storage)
    commit_catalog(cache, catalog, bad)
    _forget_earlier(cache)


def restore_catalog(cache: Cache) -> None:
    """Put the earlier catalog back where `replace_catalog` was interrupted, so that it can begin anew."""
    if not is_aside(cache.storage):
        return
    entry = cache.manifest.entries([CATALOG_TASK]).get(CATALOG_TASK)
    put_back(cache.storage, entry.files if entry else ())
    _forget_earlier(cache)


def count_unnamed(cache: Cache) -> None:
    """Count images in archives that no annotation names, once all tasks are done; see `archive_members`.

    Where the data set is not there, nothing can have been read since they were counted.

    Raises:
        DataError: the catalog or its manifest part is damaged.
    """
    if not cache.source_root.is_dir():
        return
    source, root = cache.source, cache.source_root

    def archive_of(path: str) -> str:
        return source.file_of(path).relative_to(root).as_posix()

    count_members(cache.manifest, cache.catalog_task, cache.read_catalog(), archive_of)


def _forget_earlier(cache: Cache) -> None:
    if part_name(CATALOG_TASK) in cache.manifest.loose_parts():
        cache.manifest.drop_merged([CATALOG_TASK])
    forget_aside(cache.storage)


def _usable(records: Iterable[Record], bad: list[BadAnnotation | LeftOut]) -> Iterator[Annotation]:
    """The usable annotations; the others are appended to `bad`."""
    for record in records:
        if isinstance(record, Annotation):
            yield record
        else:
            bad.append(record)
