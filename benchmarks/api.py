"""What the API adds to the bare calls of its networks: one encoding, four evaluations of the transformer, one decoding.

make bench-api      # prints last: api_overhead_shapes=... api_overhead_tiny=...

Both are called in turn with the same captions; the figure is the median of the ratios of their times, less one.
`shapes` is the model that ships, whose network takes milliseconds; `tiny` has Tiny/2 in its place, with random
weights.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from lcm_distill.api import TextToImage, open_model
from lcm_distill.config import load_preset
from lcm_distill.models.networks import build_network

PROMPTS = ["a large red heart in the centre on a cream background", "a small blue star"]
STEPS, GUIDANCE = 4, 2.0


def bare(model: TextToImage) -> Callable[[], Tensor]:
    """The calls that generating cannot do without, on noise that is there already."""
    sigmas = [torch.full((len(PROMPTS),), sigma) for sigma in (80.0, 8.0, 2.0, 0.5)]
    network = model.network
    noise = torch.randn(len(PROMPTS), network.in_channels, network.latent_size, network.latent_size)

    @torch.inference_mode()
    def call() -> Tensor:
        denoise, latents = model.denoiser(model.text_encoder.encode(PROMPTS), GUIDANCE), noise
        for sigma in sigmas:
            latents = denoise(latents, sigma)
        return model.image_encoder.decode(latents)

    return call


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def overhead(model: TextToImage, repeats: int) -> float:
    """The share by which `generate` takes longer than the bare calls."""
    calls = bare(model)
    generate = lambda: model.generate(PROMPTS, STEPS, GUIDANCE, seed=0)  # noqa: E731
    for warm_up in (calls, generate):
        warm_up()
    return statistics.median(seconds(generate) / seconds(calls) for _ in range(repeats)) - 1


def main() -> None:
    """Measure both models, and print what the API adds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=41)
    repeats = parser.parse_args().repeats
    model = open_model("shapes")
    shapes = overhead(model, repeats)
    sizes = load_preset("shapes", ["model.arch=MicroDiT_Tiny_2"]).model
    model.network = build_network(sizes, guidance_embedding=True, empty=False).eval()
    print(f"api_overhead_shapes={shapes:.3f} api_overhead_tiny={overhead(model, repeats // 4):.3f}")


if __name__ == "__main__":
    main()
