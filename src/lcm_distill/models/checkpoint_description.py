"""The description in a checkpoint, which says what it is, sealed by its hash."""

from pathlib import Path
from typing import Any, cast

from lcm_distill.core.hashing import json_sha256
from lcm_distill.core.json import parse_json
from lcm_distill.core.weight_errors import cannot_read
from lcm_distill.models.weight_files import file_metadata

ALTERED = "it is not what was written"

METADATA = "lcm_distill"
"""Key of the description, as JSON, in the metadata of a safetensors file or of an index of shards."""
TENSORS_SHA256, SEAL = "tensors_sha256", "sha256"
"""Keys of two hashes in the description: of the tensors, and of the description with the first. Earlier versions wrote
none."""


def read_description(path: Path) -> dict[str, Any]:
    """The description of a checkpoint; empty for a file without one.

    Raises:
        UserError: the file is missing, unreadable, or its description is not what was written.
    """
    return read_description_and_hash(path)[0]


def read_description_and_hash(path: Path) -> tuple[dict[str, Any], str | None]:
    """`read_description`, and the hash of the tensors where it records one."""
    metadata = file_metadata(path)
    if not metadata.get(METADATA):
        if any(f'"{TENSORS_SHA256}"' in str(text) for text in metadata.values()):
            raise cannot_read(path, ALTERED)  # the name of a description is damaged
        return {}, None
    try:
        described = parse_json(metadata[METADATA])
    except (ValueError, TypeError) as error:
        raise cannot_read(path, error) from error
    if not isinstance(described, dict):
        raise cannot_read(path, "its description is no JSON object")
    described = cast(dict[str, Any], described)
    seal, recorded = described.pop(SEAL, None), described.pop(TENSORS_SHA256, None)
    sealed = {**described, TENSORS_SHA256: recorded}
    if seal != (None if recorded is None else json_sha256(sealed)):
        raise cannot_read(path, ALTERED)
    return described, recorded
