"""What a field was encoded by: the encoder's name and the hash of its weights, dtype and library versions."""

from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from lcm_distill.config import EncodersConfig
from lcm_distill.core.errors import UserError
from lcm_distill.core.hashing import file_sha256
from lcm_distill.data.cache.layout import TEXT
from lcm_distill.data.cache.metadata import read_metadata
from lcm_distill.pipeline.storage import Storage

Encoder = Literal["vae", "text"]
"""Key of `[encoders]` in the configuration."""

LIBRARIES = {"vae": ("torch", "diffusers"), "text": ("torch", "open_clip_torch")}
WEIGHTS_SHA256 = "weights_sha256"
"""Attribute of a field with the hash of the weight file; earlier versions wrote none."""


def provenance(encoders: EncodersConfig, which: Encoder) -> dict[str, Any]:
    """Attributes of a field that explain what made it, without the run folder."""
    return {
        "encoder": getattr(encoders, which),
        "weights": encoders.weights,
        WEIGHTS_SHA256: weights_sha256(encoders, which),
        "compute_dtype": encoders.dtype,
        "versions": {name: metadata.version(name) for name in LIBRARIES[which]},
    }


def weights_sha256(encoders: EncodersConfig, which: Encoder) -> str | None:
    """Hex SHA-256 of an encoder's weight file; None for random weights, and where the file is not on this machine."""
    if encoders.weights == "random":
        return None
    from lcm_distill.encoders.text import text_weights_file
    from lcm_distill.encoders.vae import vae_weights_file

    file = (vae_weights_file if which == "vae" else text_weights_file)(getattr(encoders, which))
    if file is None or not file.is_file():
        return None
    stat = file.stat()
    return _sha256_as_of(file, stat.st_size, stat.st_mtime_ns)


def require_same_weights(storage: Storage, encoders: EncodersConfig, fields: list[str], remedy: str) -> None:
    """Check that encoders have the weights that encoded what is in a cache, as far as both are known.

    Args:
        storage: of the cache.
        fields: names of its arrays.
        remedy: what to do about damaged metadata, for the message.

    Raises:
        UserError: an encoder has other weights; the message names its key.
        DataError: the metadata of a field is damaged.
    """
    names = {f"{field}/zarr.json": field for field in fields}
    for name in storage.sizes(names):
        recorded = read_metadata(storage, name, remedy)["attributes"].get(WEIGHTS_SHA256)
        which: Encoder = "text" if names[name] == TEXT else "vae"
        present = weights_sha256(encoders, which)
        if recorded and present and recorded != present:
            raise UserError(
                f"encoders.{which} = {getattr(encoders, which)!r} has other weights (SHA-256 {present[:12]}) than "
                f"{storage.locate(names[name])} was encoded with ({recorded[:12]}): put those back, or choose another "
                "--run"
            )


@cache
def _sha256_as_of(file: Path, size: int, modified: int) -> str:
    del size, modified  # they distinguish a file that was replaced
    return file_sha256(file)
