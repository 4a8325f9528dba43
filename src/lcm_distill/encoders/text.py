# The types that open_clip declares do not describe what it returns.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportPrivateImportUsage=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false
"""The text encoder: captions to token embeddings, by the text tower of a CLIP model."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lcm_distill import assets
from lcm_distill.config import Dtype, Weights
from lcm_distill.core.device import to_device
from lcm_distill.core.errors import UserError, one_line
from lcm_distill.core.finite_weights import require_finite
from lcm_distill.core.library_messages import quiet_libraries
from lcm_distill.encoders.initialisation import fixed_initialisation
from lcm_distill.encoders.openclip import (
    BUILT_IN,
    cast_tower,
    fitting_tokenizer,
    load_text_tower,
    random_text_tower,
    save_text_tower,
    stored_config,
    stored_tokenizer,
    stored_weights,
)

DFN5B = "apple/DFN5B-CLIP-ViT-H-14-378"
Tokenizer = Callable[[Sequence[str]], Tensor]
"""Captions -> token ids, int64 (B, context_length)."""


class TextEncoder:
    """A frozen open_clip text tower that returns the last hidden state of every token, after the final norm.

    Attributes:
        context_length: tokens of a caption, including padding.
        width: of a token's embedding.
    """

    def __init__(self, tower: nn.Module, tokenize: Tokenizer) -> None:
        self.tower = tower.eval().requires_grad_(False)
        self.tokenize = tokenize
        positions = cast(Tensor, tower.positional_embedding)
        self.context_length, self.width = positions.shape

    def to(self, device: str | torch.device) -> "TextEncoder":
        """Move the weights, in place. Returns self."""
        self.tower.to(device)
        return self

    @torch.inference_mode()
    def encode(self, captions: Sequence[str]) -> Tensor:
        """Embed captions: float32 (B, context_length, width), on the tower's device."""
        device = cast(Tensor, self.tower.positional_embedding).device
        return hidden_states(self.tower, to_device(self.tokenize(list(captions)), device))


def hidden_states(tower: nn.Module, tokens: Tensor) -> Tensor:
    """Token ids (B, L) to hidden states (B, L, width) after the final norm and before pooling, float32."""
    embedded = tower.token_embedding(tokens) + tower.positional_embedding
    return tower.ln_final(tower.transformer(embedded, attn_mask=tower.attn_mask))


def load_text_encoder(name: str, weights: Weights = "pretrained", dtype: Dtype = "float32") -> TextEncoder:
    """The text encoder `name`, on the CPU; the arguments are keys of the configuration's `[encoders]`.

    Raises:
        UserError: the name has another form, or the weights are not here and cannot be fetched, or are not finite.
    """
    if name == "shapes":
        encoder = load_shapes_text_encoder(assets.TEXT_ENCODER, weights)
    else:
        encoder = _open_clip_encoder(_open_clip_name(name), weights)
    require_finite(encoder.tower.state_dict(), f"encoders.text = {name!r}")
    cast_tower(encoder.tower, getattr(torch, dtype))
    return encoder


def text_weights_file(name: str) -> Path | None:
    """The file with the weights of the text encoder `name`; None where it is not on this machine.

    Raises:
        UserError: the name has another form.
    """
    return assets.TEXT_ENCODER / "model.safetensors" if name == "shapes" else stored_weights(_open_clip_name(name))


def text_config_file(name: str) -> Path | None:
    """The configuration file of the text encoder `name`; None where it is not on this machine.

    Raises:
        UserError: the name has another form.
    """
    return assets.TEXT_ENCODER / "config.json" if name == "shapes" else stored_config(_open_clip_name(name))


def tokenizer_files(name: str) -> list[Path]:
    """What a tokenizer may be read from in the folder of `openclip:local-dir:FOLDER`, in order of name.

    Raises:
        UserError: the name has another form.
    """
    return [] if name == "shapes" else stored_tokenizer(_open_clip_name(name))


def save_text_encoder(name: str, folder: Path) -> None:
    """Write the text tower of `openclip:NAME` into `folder`, to be loaded as `openclip:local-dir:FOLDER`.

    Raises:
        UserError: as `load_text_encoder`.
    """
    name = _open_clip_name(name)
    try:
        with quiet_libraries():
            save_text_tower(name, folder)
    except Exception as error:  # open_clip and transformers raise nearly anything on what is not their own
        raise _cannot_load(name, error) from error


def _open_clip_name(name: str) -> str:
    if not name.startswith("openclip:"):
        raise UserError(f"encoders.text = {name!r}: write `shapes` or `openclip:NAME`")
    return name.removeprefix("openclip:")


def _open_clip_encoder(name: str, weights: Weights) -> TextEncoder:
    try:
        with quiet_libraries():
            if weights == "random":
                tower, name = random_text_tower(name), BUILT_IN.get(name, name)
            else:
                tower = load_text_tower(name)
            return TextEncoder(tower, fitting_tokenizer(name, tower))
    except Exception as error:  # open_clip and transformers raise nearly anything on what is not their own
        raise _cannot_load(name, error) from error


def _cannot_load(name: str, error: Exception) -> UserError:
    repository = name.removeprefix("hf-hub:") if name.startswith("hf-hub:") else DFN5B
    folder = repository.split("/")[-1]
    return UserError(
        f"encoders.text = 'openclip:{name}' cannot be loaded ({one_line(error)}): run `hf download "
        f"{repository} --include 'open_clip*' --include '*token*' --local-dir {folder}` on a machine with network, "
        f"bring the folder here and set encoders.text=openclip:local-dir:{folder}"
    )


def build_shapes_tower(config: dict[str, Any]) -> nn.Module:
    """The small text tower of `shapes`, randomly initialised, from its `config.json`."""
    from open_clip.transformer import LayerNormFp32, TextTransformer

    return TextTransformer(**config, norm_layer=LayerNormFp32)


def load_shapes_text_encoder(folder: Path, weights: Weights = "pretrained") -> TextEncoder:
    """The small text tower of `shapes`, from its folder."""
    config = json.loads((folder / "config.json").read_text())
    with fixed_initialisation():
        tower = build_shapes_tower(config["tower"])
    if weights == "pretrained":
        stored = load_file(folder / "model.safetensors")
        tower.load_state_dict({name: tensor.float() for name, tensor in stored.items()})
    return TextEncoder(tower, compact_tokenizer(config["vocabulary"], config["tower"]["context_length"]))


def compact_tokenizer(vocabulary: Sequence[int], context_length: int) -> Tokenizer:
    """CLIP's byte-pair tokeniser, restricted to the tokens in `vocabulary`; any other becomes id 1.

    The list is ascending and starts with padding (0) and the unknown token (1), so that the end token keeps the largest
    id, by which CLIP finds it for pooling.
    """
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer(context_length=context_length)
    compact = compact_ids(vocabulary, tokenizer.vocab_size)
    return lambda captions: compact[tokenizer(list(captions))]


def compact_ids(vocabulary: Sequence[int], size: int) -> Tensor:
    """Ids in a vocabulary of `size` tokens to those of `compact_tokenizer`, int64 (size,)."""
    compact = torch.ones(size, dtype=torch.long)
    compact[torch.tensor(vocabulary)] = torch.arange(len(vocabulary))
    return compact
