# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownParameterType=false, reportUnknownLambdaType=false
"""What encoded the rows of a cache, as its commits and the attributes of its arrays record it."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from lcm_distill.arrays.metadata import read_metadata
from lcm_distill.config import EncodersConfig
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.data.cache.layout import TEXT
from lcm_distill.encoders.identity import IDENTITY, OPTIONAL, SCALING, Encoder, identity
from lcm_distill.pipeline.manifest import AHEAD, MERGED, Manifest, task_of_part
from lcm_distill.pipeline.prefetch import prefetch_map
from lcm_distill.pipeline.task import Task

ENCODED_BY = "encoded_by"
"""Column of the manifest: JSON of `encoders.identity.identity`, `batch_size` and, for images, `transform`."""
BATCH_SIZE, TRANSFORM = "batch_size", "transform"
DIGITS = 16
"""Hex digits of a hash in the manifest; an array's attributes have all."""


def encode(values: Mapping[str, Any]) -> str:
    """The value of `ENCODED_BY`."""
    shortened = {key: value[:DIGITS] if key.endswith("_sha256") else value for key, value in values.items()}
    return json.dumps(shortened, sort_keys=True)


def encoder_of(field: str) -> Encoder:
    """The encoder that fills a field."""
    return "text" if field == TEXT else "vae"


def committed(manifest: Manifest, fields: Collection[str]) -> dict[str, dict[str, Any]]:
    """`ENCODED_BY` of the first commit of each field that has it; empty for a field whose commits have none.

    Commits of earlier versions have none. Parts that cannot be read are passed over: others complain of them.
    """
    found: dict[str, dict[str, Any]] = {}

    def files() -> Iterator[str]:
        for file in manifest.files():
            merged = file.rpartition("/")[2].startswith(MERGED)
            wanted = fields if merged else {task_of_part(file).rpartition("-")[0]} & {*fields}
            if not all(found.get(field) for field in wanted):
                yield file

    for tables in prefetch_map(lambda file: _tables(manifest, file), files(), manifest.storage.readers, AHEAD):
        for rows in tables:
            for field in {*rows["field"].to_pylist()} & {*fields}:
                found[field] = found.get(field) or _first(rows)
        if all(found.get(field) for field in fields):
            break
    return found


def batch_sizes(manifest: Manifest, tasks: Sequence[Task]) -> dict[str, int]:
    """Batch sizes that committed tasks were encoded with, by name, as far as they are recorded."""
    names = {task.name for task in tasks}
    found: dict[str, int] = {}
    for file in manifest.files():
        try:
            rows_of = {entry.task: rows for entry, rows in manifest.rows(file, names, [ENCODED_BY])}
        except DataError:
            continue
        found |= {name: size for name, rows in rows_of.items() if (size := _first(rows).get(BATCH_SIZE))}
    return found


def require_same_encoders(
    manifest: Manifest, encoders: EncodersConfig, fields: Collection[str], damaged: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """Check that the encoders that are here now are those that encoded a cache, as far as both are known.

    Args:
        fields: names of its arrays. damaged: those whose attributes are known to be damaged.

    Returns:
        As `committed`.

    Raises:
        UserError: an encoder differs; the message names its key and what differs.
        DataError: the attributes of an array are damaged.
    """
    storage, known = manifest.storage, committed(manifest, fields)
    described = storage.sizes([f"{field}/zarr.json" for field in fields if field not in damaged])
    for field in fields:
        recorded = [known.get(field, {})]
        if f"{field}/zarr.json" in described:
            recorded.append(read_metadata(storage, f"{field}/zarr.json", manifest.remedy)["attributes"])
        for values in recorded:
            require_same(values, encoders, field, storage.locate(field))
    return known


def require_same(recorded: Mapping[str, Any], encoders: EncodersConfig, field: str, where: str) -> None:
    """Check that an encoder is what was recorded of the one that filled a field.

    Args:
        where: the field, for the message.

    Raises:
        UserError: it differs.
    """
    which = encoder_of(field)
    present = identity(encoders, which)
    for key, called in IDENTITY.items():
        # No shift and no std are recorded where there is none.
        known = key in OPTIONAL and SCALING in recorded and SCALING in present
        ours, theirs = _shown(key, present.get(key)), _shown(key, recorded.get(key))
        if (known or (ours is not None and theirs is not None)) and ours != theirs:
            raise UserError(
                f"encoders.{which} = {getattr(encoders, which)!r} has other {called} ({ours}) than {where} was encoded "
                f"with ({theirs}): put those back, or choose another --run"
            )


def _shown(key: str, value: Any) -> str | None:
    """A value as it is compared and named."""
    if value is None:
        return None
    return f"SHA-256 {value[:DIGITS]}" if key.endswith("_sha256") else json.dumps(value)


def _tables(manifest: Manifest, file: str) -> list[pa.Table]:
    try:
        return [rows for _, rows in manifest.rows(file, None, ["field", ENCODED_BY])]
    except DataError:
        return []


def _first(rows: pa.Table) -> dict[str, Any]:
    """What the first row that has it was encoded by."""
    return json.loads(next((value for value in rows[ENCODED_BY].drop_null().to_pylist()), "{}"))
