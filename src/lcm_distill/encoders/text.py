# The types that open_clip declares do not describe what it returns.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportPrivateImportUsage=false
"""Captions to token embeddings, by the text tower of a CLIP."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lcm_distill import assets
from lcm_distill.errors import UserError

WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Names the hub's open_clip repositories give their weights."""

Tokenizer = Callable[[Sequence[str]], Tensor]


class TextEncoder:
    """An open_clip text tower that returns the last hidden state of every token, after its final norm.

    Attributes:
        context_length: tokens to a caption, padding included.
        width: channels of a token's embedding.
    """

    def __init__(self, tower: nn.Module, tokenize: Tokenizer) -> None:
        self.tower = tower.eval().requires_grad_(False)
        self.tokenize = tokenize
        positions = cast(Tensor, tower.positional_embedding)
        self.context_length, self.width = positions.shape

    def to(self, device: str | torch.device) -> "TextEncoder":
        """Move the weights; returns self."""
        self.tower.to(device)
        return self

    @torch.inference_mode()
    def encode(self, captions: Sequence[str]) -> Tensor:
        """Captions to (B, context_length, width), float32."""
        device = cast(Tensor, self.tower.positional_embedding).device
        return hidden_states(self.tower, self.tokenize(list(captions)).to(device)).float()


def hidden_states(tower: nn.Module, tokens: Tensor) -> Tensor:
    """Token ids (B, L) to hidden states (B, L, width) after the final norm, before pooling."""
    embedded = tower.token_embedding(tokens) + tower.positional_embedding
    return tower.ln_final(tower.transformer(embedded, attn_mask=tower.attn_mask))


def load_text_encoder(name: str) -> TextEncoder:
    """The text tower called `name`: `shapes`, `openclip:hf-hub:ORGANISATION/NAME` or `openclip:local-dir:FOLDER`.

    Raises:
        UserError: the name has another form, or the weights are neither here nor can they be fetched.
    """
    if name == "shapes":
        return load_shapes_text_encoder(assets.TEXT_ENCODER)
    if not name.startswith("openclip:"):
        raise UserError(f"text encoder {name!r}: write `shapes` or `openclip:NAME`")
    return _open_clip_encoder(name.removeprefix("openclip:"))


def _open_clip_encoder(name: str) -> TextEncoder:
    import open_clip

    try:
        tower = build_text_tower(name)
        load_text_weights(tower, _weights_file(name))
        tokenizer = open_clip.get_tokenizer(name)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"text encoder openclip:{name} cannot be loaded ({' '.join(str(error).split())[:200]}): fetch it on a "
            f"machine with network with `hf download {name.removeprefix('hf-hub:')} --local-dir DIR` and set "
            "encoders.text to openclip:local-dir:DIR"
        ) from error
    return TextEncoder(tower, tokenizer)


def build_text_tower(name: str) -> nn.Module:
    """The text tower of an open_clip model, freshly initialised; its image tower, most of the weights, is not built.

    Raises:
        ValueError: open_clip knows no such model.
    """
    import open_clip
    from open_clip.model import _build_text_tower

    config = open_clip.get_model_config(name)
    if config is None:
        raise ValueError("open_clip knows no such model")
    return _build_text_tower(config["embed_dim"], config["text_cfg"], config.get("quick_gelu", False))


def load_text_weights(tower: nn.Module, path: Path) -> None:
    """Load the text tower's share of a whole CLIP's weights, strictly; of a `.safetensors` the rest is not even read.

    Raises:
        RuntimeError: weights are missing, unexpected or of another shape.
    """
    wanted = set(tower.state_dict())
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(name) for name in file.keys() if (key := _text_key(name)) in wanted}  # noqa: SIM118
    else:
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        tensors = {key: tensor for name, tensor in stored.items() if (key := _text_key(name)) in wanted}
    # The mask is a constant that older files carry and newer ones leave out.
    tensors.setdefault("attn_mask", tower.state_dict().get("attn_mask"))
    tower.load_state_dict({name: tensor for name, tensor in tensors.items() if name in wanted})


def _text_key(name: str) -> str:
    """Models with a text tower of their own keep it under `text.`; plain CLIP has its parts at the top."""
    return name.removeprefix("text.")


def _weights_file(name: str) -> Path:
    """Where a model's weights lie, fetched from the hub if need be.

    Raises:
        OSError: they are neither here nor can they be fetched.
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


def build_shapes_tower(config: dict[str, Any]) -> nn.Module:
    """The tiny text tower of `shapes`, freshly initialised, from its `config.json`."""
    from open_clip.transformer import TextTransformer

    return TextTransformer(**config)


def load_shapes_text_encoder(folder: Path) -> TextEncoder:
    """The tiny text tower of `shapes`, from its folder."""
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    tower = build_shapes_tower(config["tower"])
    tower.load_state_dict({name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()})
    return TextEncoder(tower, compact_tokenizer(config["vocabulary"], config["tower"]["context_length"]))


def compact_tokenizer(vocabulary: Sequence[int], context_length: int) -> Tokenizer:
    """CLIP's byte-pair tokeniser over the few tokens that `vocabulary` lists; any other becomes id 1.

    The list is ascending and starts with padding (0) and a stand-in for unknown tokens (1), so that the end
    token stays the largest id, which is where CLIP pools.
    """
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer(context_length=context_length)
    compact = torch.ones(tokenizer.vocab_size, dtype=torch.long)
    compact[torch.tensor(vocabulary)] = torch.arange(len(vocabulary))
    return lambda captions: compact[tokenizer(list(captions))]
