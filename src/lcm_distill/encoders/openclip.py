# The types that open_clip declares do not describe what it returns.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportPrivateImportUsage=false, reportPrivateUsage=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false
"""Text towers of open_clip models, without building or reading the image towers, which have most of the weights."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lcm_distill.core.numbers import require_number, require_sizes
from lcm_distill.encoders.foreign_networks import read_config, require_few_parameters, stored_shapes
from lcm_distill.encoders.initialisation import fixed_initialisation

WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Names of the weight files in open_clip repositories on the Hugging Face Hub."""
CONFIG = "open_clip_config.json"
"""Name of the configuration file beside the weights."""
TOKENIZER = ("*token*", "vocab*", "merges*", "*.model", "config.json")
"""Patterns of the files that tokenizers of `transformers` are read from."""
LOCATIONS = ("hf-hub:", "local-dir:")
"""What the name of a model begins with whose configuration is a file of somebody else's."""
BUILT_IN = {"hf-hub:apple/DFN5B-CLIP-ViT-H-14-378": "ViT-H-14-378-quickgelu"}
"""Hub models whose configuration is also built into open_clip, with its name there."""
SIZES = {
    "context_length": (1, 4_096),
    "vocab_size": (1, 2_000_000),
    "width": (1, 16_384),
    "heads": (1, 1_024),
    "layers": (1, 128),
}
"""Whole numbers of a text tower's configuration, and the range of each; far wider than those in use."""
MOST_MLP_RATIO = 32


def build_text_tower(name: str) -> nn.Module:
    """The text tower of an open_clip model, randomly initialised, in float32, for `cast_tower`.

    Raises:
        OSError: its configuration is neither here nor can it be fetched.
        ValueError: open_clip has no such model, the model's text tower comes from another library, or its sizes are
            far from any in use.
    """
    config = _checked_config(name)
    with torch.device("meta"):
        require_few_parameters(_build(config))
    return _build(config)


def _build(config: dict[str, Any]) -> nn.Module:
    from open_clip.model import _build_text_tower

    # With any low-precision `cast_dtype`, open_clip builds norms that compute in float32.
    return _build_text_tower(
        config["embed_dim"], config["text_cfg"], config.get("quick_gelu", False), cast_dtype=torch.bfloat16
    )


def _checked_config(name: str) -> dict[str, Any]:
    """The configuration of a model, whose numbers are those that a text tower can have.

    Raises:
        OSError, ValueError: as `build_text_tower`.
    """
    import open_clip

    if name.startswith(LOCATIONS):
        config = read_config(config_file(name)).get("model_cfg")
    else:
        config = open_clip.get_model_config(name)
        if config is None:
            raise ValueError("open_clip knows no such model")
    if not isinstance(config, dict) or not isinstance(config.get("text_cfg"), dict) or "embed_dim" not in config:
        raise ValueError(f"{CONFIG} has no model_cfg with embed_dim and text_cfg")
    text = config["text_cfg"]
    if text.get("hf_model_name"):
        raise ValueError("its text tower is not one of open_clip's own")
    require_sizes(config, {"embed_dim": SIZES["width"]})
    require_sizes(text, SIZES)
    require_number("mlp_ratio", text.get("mlp_ratio", 4), 0.01, MOST_MLP_RATIO)
    return cast(dict[str, Any], config)


def fitting_tokenizer(name: str, tower: nn.Module) -> Any:
    """The tokenizer of an open_clip model; Python files beside one of `transformers` are never run.

    Raises:
        OSError, ValueError: as `build_text_tower`, or it cannot be read, or the tower has no embedding of its end
            token, which is the last of CLIP's.
    """
    tokenizer = _open_tokenizer(name)
    own = getattr(tokenizer, "tokenizer", None)  # of transformers
    last = tokenizer.eot_token_id if own is None else own.eos_token_id
    known = cast(nn.Embedding, tower.token_embedding).num_embeddings
    if last is not None and last >= known:
        raise ValueError(f"its tokenizer gives token {last}, and its configuration has vocab_size = {known}")
    return tokenizer


def _open_tokenizer(name: str) -> Any:
    import open_clip

    foreign = bool(_checked_config(name)["text_cfg"].get("hf_tokenizer_name"))
    # Given here, it overrides what the configuration says, and transformers asks nobody.
    return open_clip.get_tokenizer(name, **({"trust_remote_code": False} if foreign else {}))


def random_text_tower(name: str) -> nn.Module:
    """The text tower of an open_clip model with random weights, the same every time.

    Raises:
        ValueError: as `build_text_tower`.
    """
    with fixed_initialisation():
        return build_text_tower(BUILT_IN.get(name, name))


def load_text_tower(name: str) -> nn.Module:
    """The text tower of `hf-hub:ORGANISATION/NAME` or `local-dir:FOLDER` with its weights.

    Raises:
        OSError: the weights are neither here nor can they be fetched.
        RuntimeError: weights are missing, unexpected or of another shape.
        ValueError: the name has another form; otherwise as `build_text_tower`.
    """
    file = _fitting_weights(name)
    tower = build_text_tower(name)
    tower.load_state_dict(read_text_weights(tower, file))
    return tower


def _fitting_weights(name: str) -> Path:
    """A model's weight file, once its names and shapes are those of the model's text tower; nothing is allocated.

    Raises:
        OSError, RuntimeError, ValueError: as `load_text_tower`.
    """
    with torch.device("meta"):
        tower = build_text_tower(name)
    file = weights_file(name)
    shapes = stored_shapes(file)
    tower.load_state_dict({key: shapes[stored] for key, stored in _text_share(tower, shapes).items()})
    return file


def save_text_tower(name: str, folder: Path) -> None:
    """Write a model's text tower into `folder` with unchanged weights, to be loaded as `local-dir:FOLDER`.

    Raises:
        OSError, RuntimeError, ValueError: as `load_text_tower`.
    """
    import open_clip
    from safetensors.torch import save_file

    with torch.device("meta"):
        tower = build_text_tower(name)
    tensors = read_text_weights(tower, weights_file(name))
    tower.load_state_dict(tensors, assign=True)  # checks names and shapes against the configuration
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / WEIGHTS[0])
    shutil.copyfile(config_file(name), folder / CONFIG)
    tokenizer = _open_tokenizer(name)
    if isinstance(tokenizer, open_clip.tokenizer.HFTokenizer):  # the default tokeniser is part of open_clip
        tokenizer.save_pretrained(folder)


def read_text_weights(tower: nn.Module, path: Path) -> dict[str, Tensor]:
    """The text tower's weights from a CLIP checkpoint, as stored; from a `.safetensors` file only these are read.

    Weights of blocks that `tower` lacks are included, so that loading the weights of a deeper tower fails.
    """
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(name) for key, name in _text_share(tower, file.keys()).items()}
    stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return {key: stored[name] for key, name in _text_share(tower, stored).items()}


def _text_share(tower: nn.Module, stored: Iterable[str]) -> dict[str, str]:
    """Of the names in a file, those of a text tower, by its own names."""
    wanted = set(tower.state_dict())
    named = {_text_key(name): name for name in stored}
    return {key: name for key, name in named.items() if key in wanted or key.startswith("transformer.")}


def _text_key(name: str) -> str:
    """A stored name without the prefix `text.`, which custom text towers have and plain CLIP models lack."""
    return name.removeprefix("text.")


def weights_file(name: str) -> Path:
    """A model's weight file, downloaded from the hub if needed.

    Raises:
        OSError: it is not here and cannot be fetched.
        ValueError: the name has neither form.
    """
    from open_clip.pretrained import download_pretrained_from_hf

    location, _, where = name.partition(":")
    if location == "hf-hub":
        return Path(download_pretrained_from_hf(where))
    if location != "local-dir":
        raise ValueError("write hf-hub:ORGANISATION/NAME or local-dir:FOLDER")
    found = [path for file in WEIGHTS if (path := Path(where) / file).is_file()]
    if not found:
        raise FileNotFoundError(f"{where} holds no {' or '.join(WEIGHTS)}")
    return found[0]


def stored_weights(name: str) -> Path | None:
    """A model's weight file if it is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    location, _, where = name.partition(":")
    if location == "local-dir":
        return next((Path(where) / file for file in WEIGHTS if (Path(where) / file).is_file()), None)
    if location != "hf-hub":
        return None
    cached = (try_to_load_from_cache(where, file) for file in WEIGHTS)
    return next((Path(found) for found in cached if isinstance(found, str)), None)


def stored_config(name: str) -> Path | None:
    """A model's `open_clip_config.json` if it is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    location, _, where = name.partition(":")
    if location == "local-dir":
        return Path(where) / CONFIG
    found = try_to_load_from_cache(where, CONFIG) if location == "hf-hub" else None
    return Path(found) if isinstance(found, str) else None


def stored_tokenizer(name: str) -> list[Path]:
    """Files of `local-dir:FOLDER` that a tokenizer may be read from, in order of name."""
    location, _, where = name.partition(":")
    if location != "local-dir":
        return []
    return sorted({path for pattern in TOKENIZER for path in Path(where).glob(pattern) if path.is_file()})


def config_file(name: str) -> Path:
    """A model's `open_clip_config.json`, downloaded from the hub if needed.

    Raises:
        OSError: it cannot be fetched.
    """
    from open_clip.pretrained import download_pretrained_from_hf

    location, _, where = name.partition(":")
    return Path(download_pretrained_from_hf(where, filename=CONFIG)) if location == "hf-hub" else Path(where) / CONFIG


def cast_tower(tower: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Compute a tower's matrix products in `dtype`, in which its blocks' weights are then held; returns the tower.

    Embeddings, norms and the residual stream stay float32, as under autocast.
    """
    from open_clip.transformer import LayerNormFp32

    tower.transformer.to(dtype)
    for module in tower.transformer.modules():
        if isinstance(module, LayerNormFp32):
            module.float().register_forward_hook(lambda _norm, _inputs, normed: normed.to(dtype))
    return tower
