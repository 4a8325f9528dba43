# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
"""The rows of a cache's manifest: one for each image, caption, rejected annotation and file of the catalog."""

from typing import Any, Literal, TypedDict

import pyarrow as pa

from lcm_distill.data.sources.interface import BadAnnotation, LeftOut
from lcm_distill.pipeline.manifest import QUARANTINED

CATALOG_TASK = "catalog"
"""The task whose rows are those of the catalog's files and of rejected annotations."""

LEFT_OUT = "left out"
"""Status of an image file that is no part of the data set, such as a hidden one; `error` has the reason."""

IMAGE_CHECKSUM = "image_crc32c"
"""Column with the checksum of an image's file, which tells whether it is still the one that was encoded."""

SAMPLE_COLUMNS = pa.schema(
    [("kind", pa.string()), ("field", pa.string()), ("sample_id", pa.string()), ("row", pa.int64()),
     ("shard", pa.int64()), ("source", pa.string()), ("caption_row", pa.int64()), ("split", pa.string()),
     ("width", pa.int64()), ("height", pa.int64()), ("status", pa.string()),
     ("error", pa.string()), ("checksum", pa.int64()), ("note", pa.string()),
     ("image_bytes", pa.int64()), ("image_crc32c", pa.int64()), ("encoded_by", pa.string())]
)  # fmt: skip
"""Columns of the manifest, beside those that every manifest has."""


class SampleRow(TypedDict, total=False):
    """Values of `SAMPLE_COLUMNS`.

    Attributes:
        kind: `image`, `caption`, `annotation` (an image that is no sample, or whose annotation was rejected), `record`
            (what was rejected or left out and is about no image) or `catalog` (one of its files). Earlier versions
            have `annotation` for `record`.
        field: name of the array that contains the row.
        sample_id: identifier of an image in its data set. source: its path there, or the place of a record.
        row: number of the row in the field. shard: number of the shard that contains it.
        caption_row: row of the caption in the field `text`.
        split: `train` or `valid`.
        width, height: of the image file, in pixels.
        status: `ok`, `quarantined` or `left out`. error: reason of the latter two.
        checksum: CRC-32C of the row's bytes.
        image_bytes, image_crc32c: size and CRC-32C of the image file that was encoded; earlier versions recorded none.
        note: what was done to a usable image beyond the usual: its colours were converted. Of an annotation: the line
            that it is in.
        encoded_by: what encoded the row, as `encoder_provenance.encode` has it.
    """

    kind: Literal["image", "caption", "annotation", "record", "catalog"]
    field: str
    sample_id: str
    row: int
    shard: int
    source: str
    caption_row: int
    split: str
    width: int
    height: int
    status: str
    error: str
    checksum: int
    note: str
    image_bytes: int
    image_crc32c: int
    encoded_by: str


def rejected_row(record: BadAnnotation | LeftOut) -> dict[str, Any]:
    """The manifest row of what is no sample, under the name of the image that it is about."""
    if isinstance(record, LeftOut):
        kind, known = "annotation" if record.image else "record", {"status": LEFT_OUT, "error": record.reason}
        return {"kind": kind, "source": record.source, **known}
    known = {"status": QUARANTINED, "error": record.error}
    if record.image is None:
        return {"kind": "record", "source": record.source, **known}
    note = record.source if record.source != record.image else None
    return {"kind": "annotation", "source": record.image, "note": note, **known}
