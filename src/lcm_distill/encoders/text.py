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
    """The text tower called `name`: `shapes`, or `openclip:` and a name open_clip knows.

    Raises:
        UserError: the name has another form, or the weights are neither here nor can they be fetched.
    """
    if name == "shapes":
        return load_shapes_text_encoder(assets.TEXT_ENCODER)
    if not name.startswith("openclip:"):
        raise UserError(f"text encoder {name!r}: write `shapes` or `openclip:NAME`")
    import open_clip

    model_name = name.removeprefix("openclip:")
    try:
        clip = open_clip.create_model(model_name, require_pretrained=model_name.startswith("hf-hub:"))
        tokenizer = open_clip.get_tokenizer(model_name)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"text encoder {name!r} cannot be loaded: fetch it on a machine with network with "
            f"`hf download {model_name.removeprefix('hf-hub:')} --local-dir DIR` and set "
            "encoders.text to openclip:local-dir:DIR"
        ) from error
    # Models with a text tower of their own keep it under `.text`; plain CLIP has its parts at the top.
    tower = getattr(clip, "text", clip)
    if tower is clip:
        del clip.visual
    return TextEncoder(tower, tokenizer)


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
