"""A field's `zarr.json`: what the array is, what made it, and a hash of both."""

import json
from collections.abc import Mapping
from typing import Any

from lcm_distill.arrays.format import DATA_TYPE, Field, describe
from lcm_distill.core.errors import DataError
from lcm_distill.core.hashing import json_sha256
from lcm_distill.core.io_errors import require_reachable
from lcm_distill.core.json import parse_json
from lcm_distill.pipeline.storage import Storage

SEAL = "sha256"
"""Attribute with the hash of the metadata without it; earlier versions wrote none."""


def write_metadata(storage: Storage, field: Field, attributes: Mapping[str, Any]) -> None:
    """Write a field's `zarr.json`; attributes are what explains the array to its readers."""
    plain = json.loads(describe(field, attributes))
    storage.put(field.metadata_name, [describe(field, {**attributes, SEAL: json_sha256(plain)})])


def read_metadata(storage: Storage, name: str, remedy: str) -> dict[str, Any]:
    """The content of a `zarr.json`.

    Args:
        remedy: what to do about a damaged file, for the message.

    Raises:
        DataError: it is missing or not what was written.
        OSError: the device or a permission keeps it from being read.
    """
    try:
        metadata = parse_json(storage.read(name))
        sealed = metadata["attributes"].pop(SEAL, None)
        if sealed not in (None, json_sha256(metadata)) or metadata["shape"][0] < 0:
            raise ValueError("it is not what was written")
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        require_reachable(error, storage.locate(name))
        raise DataError(f"{storage.locate(name)} is missing or damaged: {remedy}") from error
    return metadata


def require_description(storage: Storage, field: Field, remedy: str) -> None:
    """Check that a field's `zarr.json` describes it and is what was written.

    Args:
        remedy: as for `read_metadata`.

    Raises:
        DataError: it is missing, damaged, or describes another array.
    """
    metadata = read_metadata(storage, field.metadata_name, remedy)
    if (metadata["shape"], metadata.get("data_type")) != ([field.rows, *field.shape], DATA_TYPE):
        raise DataError(f"{storage.locate(field.metadata_name)} describes another array: {remedy}")
