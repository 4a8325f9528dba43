# The types that open_clip and transformers declare do not describe what they return.
# pyright: reportAttributeAccessIssue=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
"""A text encoder in the form of transformers: `CLIPTextModel` and `CLIPTokenizer`, which every installation has."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lcm_distill import assets
from lcm_distill.config import EncodersConfig
from lcm_distill.core.errors import UserError
from lcm_distill.encoders.text import TextEncoder, compact_ids, load_text_encoder
from lcm_distill.publishing.remote_code.sampling import encode_prompts

CAPTIONS = ("A photo of a RED circle &amp; two blue stars, 1999!", "")
"""What a written encoder is compared on; the second caption is all padding."""
TOLERANCE = 1e-3
"""Largest difference of hidden states, which are of order 1."""

PARTS = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}  # fmt: skip
"""Names of a block's parts in open_clip and in transformers."""
WHOLE = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
UNUSED = ("text_projection", "attn_mask")


def write_tokenizer(folder: Path) -> None:
    """Write CLIP's byte-pair tokenizer, as `transformers.CLIPTokenizer` reads it, into a folder that exists."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): number for token, number in tokenizer.encoder.items()}
    merges = ["#version: 0.2", *(" ".join(pair) for pair in tokenizer.bpe_ranks)]
    settings = {
        "tokenizer_class": "CLIPTokenizer", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",  # `encode_prompts` pads with 0, the id of "!", which captions hold as well
    }  # fmt: skip
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(merges) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


def write_text_encoder(encoders: EncodersConfig, folder: Path, tokenizer: Path) -> None:
    """Write the configured text encoder as a `transformers.CLIPTextModel` into a folder that exists.

    The small vocabulary of `shapes` becomes CLIP's, with one embedding for all tokens that it lacks.

    Args:
        tokenizer: folder with what `write_tokenizer` wrote.

    Raises:
        UserError: the encoder cannot be loaded, or its network is not one that `CLIPTextModel` can be.
    """
    from safetensors.torch import save_file

    encoder = load_text_encoder(encoders.text, encoders.weights)
    tower: Any = encoder.tower
    ids = ids_of_clip(encoders.text, tower)
    weights, unknown = _converted(tower, ids)
    if unknown:
        raise _cannot_write(encoders.text, f"it has weights such as {unknown[0]}")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_settings(encoder, len(ids)), indent=2))
    difference = float((_read_back(folder, tokenizer) - encoder.encode(CAPTIONS)).abs().max())
    if not difference < TOLERANCE:
        raise _cannot_write(encoders.text, f"its hidden states would be {difference:.2g} apart")


def ids_of_clip(name: str, tower: Any) -> Tensor:
    """The ids of CLIP's tokens in the vocabulary of a text tower, int64 (49408,).

    Args:
        name: `encoders.text`; `shapes` has few tokens, and one id for all others.
    """
    if name != "shapes":
        return torch.arange(tower.vocab_size)
    stored = json.loads((assets.TEXT_ENCODER / "config.json").read_text())
    return compact_ids(stored["vocabulary"], size=49408)


@torch.inference_mode()
def _read_back(folder: Path, tokenizer: Path) -> Tensor:
    """Hidden states of `CAPTIONS` by what was written."""
    from transformers import CLIPTextModel, CLIPTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    encoder = CLIPTextModel.from_pretrained(folder)
    logging.enable_progress_bar()
    return encode_prompts(CLIPTokenizer.from_pretrained(tokenizer), encoder, CAPTIONS)


def _cannot_write(name: str, problem: str) -> UserError:
    return UserError(
        f"encoders.text = {name!r} cannot be written as a CLIPTextModel: {problem}: leave out --with-encoders"
    )


def _settings(encoder: TextEncoder, vocabulary: int) -> dict[str, Any]:
    from open_clip.transformer import QuickGELU

    tower: Any = encoder.tower
    block = tower.transformer.resblocks[0]
    return {
        "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "vocab_size": vocabulary,
        "hidden_size": encoder.width, "intermediate_size": block.mlp.c_fc.out_features,
        "num_hidden_layers": len(tower.transformer.resblocks), "num_attention_heads": tower.heads,
        "max_position_embeddings": encoder.context_length, "layer_norm_eps": block.ln_1.eps,
        "hidden_act": "quick_gelu" if isinstance(block.mlp.gelu, QuickGELU) else "gelu",
        "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 0,
    }  # fmt: skip


def _converted(tower: Any, ids: Tensor) -> tuple[dict[str, Tensor], list[str]]:
    """Weights by the names of transformers, and the names that have none there."""
    weights, unknown = dict[str, Tensor](), list[str]()
    for name, tensor in tower.state_dict().items():
        _, _, inner = name.partition("transformer.resblocks.")
        layer, _, part = inner.partition(".")
        part, _, kind = part.rpartition(".")
        if name == "token_embedding.weight":
            weights["embeddings.token_embedding.weight"] = tensor[ids]
        elif name in WHOLE:
            weights[WHOLE[name]] = tensor
        elif kind in ("in_proj_weight", "in_proj_bias"):
            for own, share in zip("qkv", tensor.chunk(3), strict=True):
                place = f"encoder.layers.{layer}.self_attn.{own}_proj.{kind.removeprefix('in_proj_')}"
                weights[place] = share
        elif part in PARTS:
            weights[f"encoder.layers.{layer}.{PARTS[part]}.{kind}"] = tensor
        elif name not in UNUSED:
            unknown.append(name)
    return {f"text_model.{name}": tensor.float().contiguous() for name, tensor in weights.items()}, unknown
