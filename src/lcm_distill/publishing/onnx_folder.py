# onnxruntime declares its types in part.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportMissingImports=false
"""A folder that ONNX Runtime generates images from: text encoder, student and decoder, each called for one image."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lcm_distill.core.errors import UserError
from lcm_distill.diffusion.preconditioning import consistency_function
from lcm_distill.encoders.images import ImageEncoder, load_image_encoder
from lcm_distill.encoders.text import TextEncoder, hidden_states, load_text_encoder
from lcm_distill.models.checkpoint import fill
from lcm_distill.models.networks import build_network
from lcm_distill.publishing.clip_text_model import CAPTIONS, ids_of_clip, write_tokenizer
from lcm_distill.publishing.export_folder import SETTINGS
from lcm_distill.publishing.published_model import Published
from lcm_distill.publishing.remote_code.sampling import clean

TOLERANCE = 1e-3
"""Largest difference of what a graph and its module compute, both of order 1."""
STEPS = range(1, 9)
"""Numbers of steps that the folder has sigmas for, beside those that the student has of its own."""

Inputs = Mapping[str, Tensor]


class _Text(nn.Module):
    """CLIP's token ids (1, L) to hidden states (1, L, C)."""

    def __init__(self, encoder: TextEncoder, ids: Tensor) -> None:
        super().__init__()
        self.tower = encoder.tower
        self.register_buffer("ids", ids)

    def forward(self, tokens: Tensor) -> Tensor:
        ids: Any = self.ids
        return hidden_states(self.tower, ids[tokens])


class _Student(nn.Module):
    """The consistency function: noisy latents (1, C, h, w), sigma (1,), captions (1, L, C) and guidance scale (1,)."""

    def __init__(self, model: Published) -> None:
        super().__init__()
        self.network = build_network(model.sizes, guidance_embedding=True, empty=True)
        fill(self.network, model.weights, Path(model.role))
        self.settings = model.diffusion

    def forward(self, latents: Tensor, sigma: Tensor, captions: Tensor, guidance: Tensor) -> Tensor:
        settings = self.settings
        function = consistency_function(self.network, settings.sigma_data, settings.sigma_min, captions, guidance)
        return function(latents, sigma)


class _Decoder(nn.Module):
    """Scaled latents (1, C, h, w) to an image (1, 3, H, W) in [0, 1]."""

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.vae, self.encoder = encoder.vae, encoder

    def forward(self, latents: Tensor) -> Tensor:
        return self.encoder.decode(latents)


def write_onnx(folder: Path, model: Published) -> None:
    """Write a student into a folder that exists, with `tokenizer.json` and `sampling.json`.

    Every graph computes one image, in float32, and is compared with its module.

    Raises:
        UserError: the model is a teacher, an encoder cannot be loaded or has another tokenizer than CLIP's, or a graph
            computes something else than its module.
    """
    if model.sampling is None:
        raise UserError("--format onnx writes students: leave out --teacher, or give --format diffusers")
    text = load_text_encoder(model.encoders.text, model.encoders.weights)
    tokens, ids = _write_tokens(folder, text, model.encoders.text)
    with torch.no_grad():
        captions = [hidden_states(text.tower, ids[each]) for each in tokens]
    latents = _examples(model)
    _write_json(folder / SETTINGS, _settings(model))
    write_graph(folder / "text_encoder.onnx", _Text(text, ids), [{"tokens": each} for each in tokens], "captions")
    sigmas, scales = (model.diffusion.sigma_max, 1.0), (model.guidance, model.guidance + 1)
    noisy = [
        {"latents": (1 + sigma) * one, "sigma": torch.tensor([sigma]), "captions": caption,
         "guidance": torch.tensor([float(scale)])}
        for one, sigma, caption, scale in zip(latents, sigmas, captions, scales, strict=True)
    ]  # fmt: skip
    write_graph(folder / "student.onnx", _Student(model), noisy, "denoised")
    decoder = _Decoder(load_image_encoder(model.encoders.vae, model.encoders.weights))
    write_graph(folder / "decoder.onnx", decoder, [{"latents": one} for one in latents], "image")


def write_graph(path: Path, module: nn.Module, examples: Sequence[Inputs], output: str) -> None:
    """Write a module as a graph, and compare both.

    Args:
        examples: inputs by name; the graph takes those of the same shapes.
        output: name of the result.

    Raises:
        UserError: the graph computes something else for one of the examples.
    """
    import onnxruntime

    with torch.no_grad():
        program = torch.export.export(module.eval().requires_grad_(False), tuple(examples[0].values()))
        torch.onnx.export(
            program, (), path, dynamo=True, input_names=list(examples[0]), output_names=[output], verbose=False
        )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for example in examples:
            (found,) = session.run(None, {name: tensor.numpy() for name, tensor in example.items()})
            apart = float((torch.from_numpy(found) - module(*example.values())).abs().max())
            if not apart < TOLERANCE:
                raise UserError(
                    f"--format onnx: {path.name} would be {apart:.2g} apart from the model: give --format diffusers"
                )


def _write_tokens(folder: Path, text: TextEncoder, name: str) -> tuple[list[Tensor], Tensor]:
    """Write CLIP's tokenizer; returns the tokens of each of `CAPTIONS`, (1, L), and the encoder's ids of tokens."""
    from tokenizers import Tokenizer
    from transformers import CLIPTokenizerFast  # pyright: ignore[reportAttributeAccessIssue]

    write_tokenizer(folder)
    fast = CLIPTokenizerFast.from_pretrained(folder)
    for path in folder.iterdir():
        path.unlink()
    tokenizer: Any = fast.backend_tokenizer
    tokenizer.enable_truncation(text.context_length)
    tokenizer.enable_padding(length=text.context_length, pad_id=0)
    tokenizer.save(str(folder / "tokenizer.json"))
    read: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = [torch.tensor([read.encode(clean(caption)).ids]) for caption in CAPTIONS]
    ids = ids_of_clip(name, text.tower)
    if not torch.equal(ids[torch.cat(tokens)], text.tokenize(CAPTIONS)):
        raise UserError(
            f"encoders.text = {name!r} has another tokenizer than CLIP's, which --format onnx writes: give --format "
            "diffusers without --with-encoders"
        )
    return tokens, ids


def _examples(model: Published) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    side = model.sizes.latent_size
    return [torch.randn(1, model.sizes.in_channels, side, side, generator=generator) for _ in CAPTIONS]


def _settings(model: Published) -> dict[str, Any]:
    """What a sampler needs to know, as the script in `examples/` reads it."""
    sampling = model.sampling
    assert sampling is not None
    steps = sampling.default_steps
    numbers = [steps] if sampling.phases else sorted({*STEPS, *sampling.sigmas})
    return {
        "sampler": sampling.sampler(steps).name,
        "default_steps": steps,
        "sigmas": {str(number): list(sampling.sampler(number).sigmas) for number in numbers},
        "sigma_min": model.diffusion.sigma_min,
        "guidance_scale": model.guidance,
        "guidance_range": sampling.guidance_range,
        "latents": [model.sizes.in_channels, model.sizes.latent_size, model.sizes.latent_size],
        "student_sha256": model.sha256,
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
