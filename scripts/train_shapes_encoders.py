# The types that diffusers declares do not describe its networks, and its classes are not declared as exported.
# pyright: reportArgumentType=false, reportPrivateImportUsage=false
"""Train the stand-ins of the `shapes` default: VAE, text tower and feature network.

    python scripts/train_shapes_encoders.py {vae,features,text} [--minutes 10] [--refine] [--seed 0]

Images are rendered on the fly under a seed that `lcm evaluate` does not use. `text` needs the feature network: its
frozen features take the place of CLIP's image tower.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from lcm_distill import assets
from lcm_distill.shapes.scenes import ATTRIBUTES, TEMPLATES, render_images, scene_of

WIDTH = 64
RENDER_SEED = 1_000_003  # apart from every seed the presets use
TOWER = {"context_length": 16, "width": 64, "heads": 2, "layers": 2, "output_dim": 128}


def training_images(count: int) -> tuple[Tensor, list[str]]:
    """Images (count, 3, 64, 64) as uint8 and their captions."""
    images, captions = render_images(RENDER_SEED, count, WIDTH)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), captions


def schedule(minutes: float, rate: float, optimiser: torch.optim.Optimizer) -> Iterator[int]:
    """Step numbers for `minutes`, with the learning rate falling to zero along a cosine."""
    start, step = time.monotonic(), 0
    while (passed := (time.monotonic() - start) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * (0.5 + 0.5 * np.cos(np.pi * passed))
        yield step
        step += 1


def new_vae() -> Any:
    """The autoencoder, freshly initialised: 64 px to 8 x 8 latents of 8 channels."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 48, 64),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=4,
        sample_size=WIDTH,
    )


def train_vae(minutes: float, refine: bool) -> None:
    """Fit the autoencoder by absolute error with a light pull of its latents to a standard normal.

    `refine` goes on from the weights that ship, on whole images, with shape and background weighed more evenly.
    """
    from safetensors.torch import load_model

    vae = new_vae().to(memory_format=torch.channels_last)
    if refine:
        load_model(vae, assets.VAE / "diffusion_pytorch_model.safetensors")
    images, _ = training_images(20_000)
    optimiser = torch.optim.AdamW(vae.parameters(), betas=(0.9, 0.99), weight_decay=1e-4)
    average = torch.optim.swa_utils.AveragedModel(vae, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995))
    began = time.monotonic()
    for step in schedule(minutes, 2e-3, optimiser):
        # Crops cost a quarter and show an edge as a whole image does; whole images come at the end.
        cropped = not refine and time.monotonic() - began < 0.75 * 60 * minutes
        batch = images[torch.randint(len(images), (32,))].float() / 127.5 - 1
        weight = 1 + (1 if refine else 5) * foreground(batch)
        if cropped:
            top, left = torch.randint(0, WIDTH // 2 + 1, (2,)).tolist()
            batch, weight = (x[..., top : top + WIDTH // 2, left : left + WIDTH // 2] for x in (batch, weight))
        batch = batch.to(memory_format=torch.channels_last)
        posterior = vae.encode(batch).latent_dist
        error = vae.decode(posterior.sample()).sample - batch
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = (weight * (error.abs() + 2 * error.square())).mean() / weight.mean() + 5e-4 * kl
        step_optimiser(loss, vae, optimiser)
        average.update_parameters(vae)
        report(step, loss=loss, rmse=error.square().mean().sqrt(), kl=kl)
    vae = cast(Any, average.module)
    with torch.no_grad():
        latents = torch.cat([vae.encode(b.float() / 127.5 - 1).latent_dist.sample() for b in images[:2048].split(64)])
    vae.register_to_config(scaling_factor=round(0.9 / float(latents.std()), 5))
    vae.half().save_pretrained(assets.VAE)
    print("scaling factor", vae.config.scaling_factor, "channel means", latents.mean((0, 2, 3)).tolist())


def foreground(images: Tensor) -> Tensor:
    """1 where an image (B, 3, H, W) departs from its own median colour, else 0; (B, 1, H, W)."""
    background = images.flatten(2).median(dim=2).values[:, :, None, None]
    return ((images - background).abs().amax(dim=1, keepdim=True) > 0.2).float()


def train_features(minutes: float) -> None:
    """Fit the feature network to name every attribute, also under blur and noise."""
    from torchvision.transforms.functional import gaussian_blur

    from lcm_distill.shapes.network import ShapesNetwork

    images, captions = training_images(20_000)
    labels = torch.tensor([scene_of(caption).labels() for caption in captions])
    network = ShapesNetwork({name: len(values) for name, values in ATTRIBUTES.items()})
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.02)
    held_out = slice(18_000, None)
    for step in schedule(minutes, 2e-3, optimiser):
        chosen = torch.randint(18_000, (128,))
        batch = images[chosen].float() / 255
        if step % 2:
            batch = gaussian_blur(batch, [5, 5], [float(np.random.uniform(0.3, 1.2))])
        batch = batch + 0.04 * torch.rand(()) * torch.randn_like(batch)
        _, logits = network(batch)
        losses = [functional.cross_entropy(x, y) for x, y in zip(logits.values(), labels[chosen].T, strict=True)]
        loss = torch.stack(losses).sum()
        step_optimiser(loss, network, optimiser)
        report(step, loss=loss)
    with torch.no_grad():
        _, logits = network(images[held_out].float() / 255)
    right = torch.stack([x.argmax(1) for x in logits.values()], 1) == labels[held_out]
    print("held-out accuracy", dict(zip(ATTRIBUTES, right.float().mean(0).tolist(), strict=True)))
    save_half(network, assets.FEATURES)


def train_text(minutes: float) -> None:
    """Fit the text tower by contrast with frozen image features, and its tokens to name the attributes."""
    from open_clip.loss import ClipLoss
    from open_clip.tokenizer import SimpleTokenizer

    from lcm_distill.encoders.text import build_shapes_tower, compact_tokenizer, hidden_states
    from lcm_distill.shapes.network import load_shapes_network

    images, captions = training_images(20_000)
    network = load_shapes_network(assets.FEATURES)
    with torch.no_grad():
        features = torch.cat([network(batch.float() / 255)[0] for batch in images.split(256)])
    labels = torch.tensor([scene_of(caption).labels() for caption in captions])
    bpe = SimpleTokenizer(context_length=TOWER["context_length"])
    words = " ".join([*TEMPLATES, *(word for values in ATTRIBUTES.values() for word in values)])
    used = set(bpe(captions).unique().tolist()) | set(bpe.encode(words.replace("{", " ").replace("}", " ")))
    vocabulary = [0, 1, *sorted(used - {0, 1})]
    config = {**TOWER, "vocab_size": len(vocabulary)}
    tower = build_shapes_tower(config)
    tokens = compact_tokenizer(vocabulary, TOWER["context_length"])(captions)
    counts = [len(values) for values in ATTRIBUTES.values()]
    project = nn.Linear(features.shape[1], TOWER["output_dim"])
    readout = nn.Linear(TOWER["width"], sum(counts))
    temperature = nn.Parameter(torch.tensor(2.5))
    contrast = ClipLoss()
    trained = nn.ModuleList([tower, project, readout])
    optimiser = torch.optim.AdamW([*trained.parameters(), temperature], weight_decay=0.01)
    for step in schedule(minutes, 2e-3, optimiser):
        chosen = torch.randint(len(tokens), (256,))
        pooled = functional.normalize(tower(tokens[chosen]), dim=-1)
        seen = functional.normalize(project(features[chosen]), dim=-1)
        named = readout(hidden_states(tower, tokens[chosen]).mean(1)).split(counts, dim=1)
        losses = [functional.cross_entropy(x, y) for x, y in zip(named, labels[chosen].T, strict=True)]
        naming = cast(Tensor, sum(losses))
        loss = contrast(seen, pooled, temperature.exp()) + naming
        step_optimiser(loss, trained, optimiser)
        report(step, loss=loss, naming=naming)
    save_half(tower, assets.TEXT_ENCODER / "model.safetensors")
    (assets.TEXT_ENCODER / "config.json").write_text(json.dumps({"tower": config, "vocabulary": vocabulary}))


def step_optimiser(loss: Tensor, module: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """One clipped step."""
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimiser.step()


def report(step: int, **figures: Tensor) -> None:
    """A line every hundred steps."""
    if step % 100 == 0:
        print(step, " ".join(f"{name} {float(value.detach()):.4f}" for name, value in figures.items()), flush=True)


def save_half(module: nn.Module, path: Path) -> None:
    """Weights as float16 safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.half().contiguous() for name, tensor in module.state_dict().items()}, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=["vae", "features", "text"])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--refine", action="store_true", help="go on from the VAE that ships")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    np.random.seed(arguments.seed)
    if arguments.network == "vae":
        train_vae(arguments.minutes, arguments.refine)
    else:
        {"features": train_features, "text": train_text}[arguments.network](arguments.minutes)
