"""What bfloat16 rounds off, beside what a pair's two points differ by, on the teacher that ships for `shapes`.

    python benchmarks/precision.py

A student learns from the difference of two outputs, at a pair's noisier and at its nearer point. What rounding adds to
that difference is noise in its gradient. All figures are root mean squares over latents in units of sigma_data, the
median over 64 samples; the teacher is guided by 2.
"""

import copy
from itertools import pairwise

import torch
from torch import Tensor

from lcm_distill.config import load_preset
from lcm_distill.core.randomness import normal
from lcm_distill.diffusion.guidance import guided_denoiser
from lcm_distill.diffusion.preconditioning import Network
from lcm_distill.diffusion.samplers import heun_step
from lcm_distill.encoders.text import load_text_encoder
from lcm_distill.models import MicroDiT
from lcm_distill.models.networks import load_teacher
from lcm_distill.models.precision import cast_matrices

SAMPLES, GUIDANCE, SIGMA_DATA = 64, 2.0, 0.9
SIGMAS = (0.1, 0.3, 1.0, 3.0, 10.0, 80.0)
RATIOS = (0.5, 0.75, 0.9, 0.95, 0.98)


def all_bfloat16(network: MicroDiT) -> Network:
    """Weights, activations and inputs, the noise level among them."""
    low = copy.deepcopy(network).bfloat16()

    def call(latents: Tensor, c_noise: Tensor, captions: Tensor, guidance: Tensor | None = None) -> Tensor:
        inputs = (latents, c_noise, captions, guidance)
        return low(*(value.bfloat16() for value in inputs if value is not None)).float()

    return call


def autocast(network: MicroDiT) -> Network:
    """What PyTorch casts by itself, and nothing else."""

    def call(latents: Tensor, c_noise: Tensor, captions: Tensor, guidance: Tensor | None = None) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return network(latents, c_noise, captions, guidance).float()

    return call


def ours(network: MicroDiT) -> Network:
    """What `engine.precision = "bfloat16"` makes of a teacher."""
    low = copy.deepcopy(network)
    cast_matrices(low)
    return low


def bfloat16_stream(network: MicroDiT) -> Network:
    """The same, with a residual stream that is added to in float32 and held in bfloat16 from addition to addition."""
    low = copy.deepcopy(network)
    cast_matrices(low)
    low.pos_embed = low.pos_embed.bfloat16()
    return low


def size(difference: Tensor) -> float:
    """Median root mean square over samples (B, C, H, W), in units of sigma_data."""
    return (difference.square().mean(dim=(1, 2, 3)).sqrt() / SIGMA_DATA).median().item()


def embedded_captions() -> Tensor:
    """Embeddings of `SAMPLES` captions, three that take turns, float32 (SAMPLES, L, C)."""
    caption = "a {} {} {} in the centre on a {} background"
    words = [("large", "red", "heart", "navy"), ("small", "blue", "star", "cream"), ("medium", "green", "ring", "mint")]
    return load_text_encoder("shapes").encode([caption.format(*words[index % 3]) for index in range(SAMPLES)]).float()


@torch.inference_mode()
def main() -> None:
    """Print a table: a row a noise level."""
    network, captions = load_teacher(load_preset("shapes").model), embedded_captions()
    forms = {"all": all_bfloat16, "autocast": autocast, "stream": bfloat16_stream, "ours": ours}
    guidance = torch.full((SAMPLES,), GUIDANCE)
    exact = guided_denoiser(network, SIGMA_DATA, captions, guidance)
    low = {name: guided_denoiser(form(network), SIGMA_DATA, captions, guidance) for name, form in forms.items()}
    # Clean latents are what the teacher makes of pure noise, in twelve steps.
    noise, start = (normal(seed, "precision", 0, range(SAMPLES), (8, 8, 8)) for seed in (0, 1))
    sigmas = torch.tensor([80.0, 30, 15, 8, 4, 2.5, 1.5, 1, 0.6, 0.3, 0.1, 0.02])
    x = start * 80
    for sigma, nearer in pairwise(sigmas):
        x = heun_step(exact, x, sigma[None], nearer[None])
    clean = exact(x, sigmas[-1:])
    print(f"{'sigma':>6} |" + "".join(f"{name:>10}" for name in forms) + " |" + "".join(f"{r:>9g} t" for r in RATIOS))
    for value in SIGMAS:
        sigma = torch.full((SAMPLES,), value)
        noisy = clean + value * noise
        expected = exact(noisy, sigma)
        errors = [size(denoise(noisy, sigma) - expected) for denoise in low.values()]
        pairs = [
            size(exact(heun_step(exact, noisy, sigma, ratio * sigma), ratio * sigma) - expected) for ratio in RATIOS
        ]
        print(f"{value:>6g} |" + "".join(f"{e:>10.4f}" for e in errors) + " |" + "".join(f"{p:>11.4f}" for p in pairs))


if __name__ == "__main__":
    main()
