"""What encodes: an encoder's weights, configuration, scaling and tokenizer, dtype and versions of libraries."""

from importlib import metadata
from types import SimpleNamespace
from typing import Any, Literal

from lcm_distill import assets
from lcm_distill.config import EncodersConfig
from lcm_distill.core.errors import DataError
from lcm_distill.core.hashing import file_sha256, json_sha256, unchanged_file_sha256
from lcm_distill.core.json import parse_json
from lcm_distill.core.regular_files import read_regular

Encoder = Literal["vae", "text"]
"""Key of `[encoders]` in the configuration."""

LIBRARIES = {"vae": ("torch", "diffusers"), "text": ("torch", "open_clip_torch")}
WEIGHTS, SCALING, OPTIONAL = "weights_sha256", "scaling_factor", ("shift", "std")
IDENTITY = {
    WEIGHTS: "weights",
    SCALING: "scaling_factor",
    "shift": "shift",
    "std": "std",
    "tokenizer_sha256": "tokenizer files",
    "config_sha256": "configuration file",
}
"""Attributes that all rows of a field must have alike, and what messages call them, in the order of being named."""


def provenance(encoders: EncodersConfig, which: Encoder) -> dict[str, Any]:
    """Attributes of a field that explain what made it, without the run folder, beside `identity`."""
    return {
        "encoder": getattr(encoders, which),
        "weights": encoders.weights,
        "compute_dtype": encoders.dtype,
        "versions": {name: metadata.version(name) for name in LIBRARIES[which]},
    }


def identity(encoders: EncodersConfig, which: Encoder) -> dict[str, Any]:
    """The values of `IDENTITY` of an encoder, as far as its files are on this machine.

    Raises:
        DataError: its configuration file cannot be read.
    """
    from lcm_distill.encoders.images import normalisation_of
    from lcm_distill.encoders.text import tokenizer_files

    described, name = _config(encoders, which), getattr(encoders, which)
    found = {WEIGHTS: weights_sha256(encoders, which)}
    if described is not None:
        found["config_sha256"] = json_sha256(described)
    if which == "vae" and described is not None:
        shift, std = normalisation_of(SimpleNamespace(**described))
        found |= {SCALING: described.get(SCALING), "shift": shift, "std": std}
    if which == "text" and (files := tokenizer_files(name)):
        found["tokenizer_sha256"] = json_sha256([[file.name, file_sha256(file)] for file in files])
    return {key: value for key, value in found.items() if value not in (None, [])}


def weights_sha256(encoders: EncodersConfig, which: Encoder) -> str | None:
    """Hex SHA-256 of an encoder's weight file; None for random weights, and where the file is not on this machine."""
    if encoders.weights == "random":
        return None
    from lcm_distill.encoders.text import text_weights_file
    from lcm_distill.encoders.vae import vae_weights_file

    file = (vae_weights_file if which == "vae" else text_weights_file)(getattr(encoders, which))
    if file is None or not file.is_file():
        return None
    return unchanged_file_sha256(file)


def _config(encoders: EncodersConfig, which: Encoder) -> dict[str, Any] | None:
    """The content of an encoder's configuration file, without what names its origin; None where it is not here."""
    from lcm_distill.encoders.text import text_config_file
    from lcm_distill.encoders.vae import CONFIG, vae_config_file

    file = (vae_config_file if which == "vae" else text_config_file)(getattr(encoders, which))
    if which == "vae" and file is None and encoders.weights == "random":
        file = assets.SDXL_VAE_CONFIG / CONFIG
    if file is None or not file.is_file():
        return None
    try:
        content = parse_json(read_regular(file))
        return {key: value for key, value in content.items() if not key.startswith("_")}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{file} is no JSON object: take a copy of encoders.{which} that was not damaged") from error
