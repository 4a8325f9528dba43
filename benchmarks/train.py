"""What a training step costs: ours beside the original's, expert layers beside one-hot products, masked beside whole.

make bench-train      # prints last: step_ratio=... moe_speedup=... moe_memory_ratio=...

Times are processor time of one thread, so that neither what else runs on the machine nor threads that wait for each
other count; work to be compared takes turns, and the least of its turns counts. The original's step is transcribed from
its description: the same transformer with experts by one-hot products, both guidance branches and all captions whole in
each of the teacher's two calls, pairs of neighbours on EDM's grid of 40, the mean square, and an average that the
target comes from.
"""

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, product

import torch
from one_hot import one_hot_experts
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from lcm_distill.config import load_preset
from lcm_distill.diffusion.ema import update_average
from lcm_distill.diffusion.guidance import guided_denoiser
from lcm_distill.diffusion.masking import kept_patches, patch_mask
from lcm_distill.diffusion.noise import karras_sigmas
from lcm_distill.diffusion.objectives.denoising import denoising_loss
from lcm_distill.diffusion.objectives.interface import Networks
from lcm_distill.diffusion.preconditioning import Network, consistency_function, edm_denoiser
from lcm_distill.models import MicroDiT, build
from lcm_distill.models.experts import ExpertChoice
from lcm_distill.models.microdit import DiTBlock
from lcm_distill.models.variants import VARIANTS
from lcm_distill.training.budget import PeakMemory
from lcm_distill.training.objective_registry import build_objective
from lcm_distill.training.teacher import masked

EXPERT_SAMPLES = 4
"""To a pass of an expert layer: with one, gradients of weights would be most of its memory, which no training has."""
LATENT, TOKENS, CAPTION, WIDTH, BATCH = 64, 1024, 77, 1024, 256
SIGMA_DATA, SIGMA_MIN, SIGMA_MAX, RHO = 0.9, 0.002, 80.0, 7.0


def least_seconds(works: Sequence[Callable[[], object]], turns: int) -> list[float]:
    """Processor time of each, the least of its turns after one that does not count."""
    times: list[list[float]] = [[] for _ in works]
    for turn in range(turns + 1):
        for work, taken in zip(works, times, strict=True):
            began = time.process_time()
            work()
            if turn:
                taken.append(time.process_time() - began)
    return [min(taken) for taken in times]


class Step:
    """Student, target and teacher of Tiny/2 at 64 x 64 latents, with random weights, and a batch to train on."""

    averages = 1

    def __init__(self, samples: int) -> None:
        torch.manual_seed(0)
        self.samples = samples
        self.student = build("MicroDiT_Tiny_2", LATENT, WIDTH, guidance_embedding=True)
        with torch.no_grad():
            for parameter in self.student.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        self.teacher = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.kept = [copy.deepcopy(self.student).requires_grad_(False) for _ in range(self.averages)]
        self.optimiser = torch.optim.AdamW(self.student.parameters(), lr=0.0)
        self.clean = SIGMA_DATA * torch.randn(samples, 4, LATENT, LATENT)
        self.noise, self.captions = torch.randn_like(self.clean), torch.randn(samples, CAPTION, WIDTH)
        self.sigma, self.guidance = torch.rand(samples).mul(4).exp(), 1 + 7 * torch.rand(samples)

    def loss(self) -> Tensor:
        """A scalar."""
        raise NotImplementedError

    def passes(self) -> None:
        """All passes through the networks."""
        self.student.zero_grad()
        self.loss().backward()

    def update(self) -> None:
        """What follows once a batch, however large."""
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimiser.step()
        for average in self.kept:
            update_average(average, self.student, 0.99)


class OriginalStep(Step):
    """The original's, transcribed."""

    def __init__(self, samples: int) -> None:
        super().__init__(samples)
        for network in (self.student, self.teacher, *self.kept):
            by_one_hot(network)

    def loss(self) -> Tensor:
        """Mean square between the student's output and its average's, one guided Heun step of the teacher later."""
        grid = karras_sigmas(40, SIGMA_MIN, SIGMA_MAX, RHO)[:-1].flip(0).float()
        start = torch.searchsorted(grid, self.sigma).clamp(1, 39)
        sigma, nearer = grid[start], grid[start - 1]
        noisy = self.clean + sigma.view(-1, 1, 1, 1) * self.noise
        with torch.no_grad():
            slope = self._slope(noisy, sigma)
            span = (nearer - sigma).view(-1, 1, 1, 1)
            end_slope = self._slope(noisy + span * slope, nearer)
            goal = self._answer(self.kept[0], noisy + span * (slope + end_slope) / 2, nearer)
        return functional.mse_loss(self._answer(self.student, noisy, sigma), goal)

    def _slope(self, x: Tensor, sigma: Tensor) -> Tensor:
        both = edm_denoiser(self.teacher, SIGMA_DATA, torch.cat([self.captions, torch.zeros_like(self.captions)]))
        said, null = both(torch.cat([x, x]), torch.cat([sigma, sigma])).chunk(2)
        return (x - null - self.guidance.view(-1, 1, 1, 1) * (said - null)) / sigma.view(-1, 1, 1, 1)

    def _answer(self, network: MicroDiT, x: Tensor, sigma: Tensor) -> Tensor:
        return edm_denoiser(network, SIGMA_DATA, self.captions, self.guidance)(x, sigma)


class OurStep(Step):
    """The default of `microdit_xl_512`, with another solver if one is named."""

    averages = 2

    def __init__(self, samples: int, solver: str) -> None:
        super().__init__(samples)
        config = load_preset("microdit_xl_512", [f"distill.solver={solver}"])
        self.objective = build_objective(config.distill, config.diffusion)

    def loss(self) -> Tensor:
        """As `stages.distill` computes it."""
        student, target = (
            consistency_function(network, SIGMA_DATA, SIGMA_MIN, self.captions, self.guidance)
            for network in (self.student, self.kept[0])
        )
        teacher = guided_denoiser(self.teacher, SIGMA_DATA, self.captions, self.guidance)
        return self.objective(Networks(student, target, teacher), self.clean, self.noise, self.sigma, 0.0).mean()


def step_ratios(samples: int, turns: int) -> tuple[float, float]:
    """Time a sample of our step over that of the original's, batches of 256: with Euler, the default, and with Heun."""
    steps = [OriginalStep(samples), OurStep(samples, "euler"), OurStep(samples, "heun")]
    taken = least_seconds([work for step in steps for work in (step.passes, step.update)], turns)
    seconds = [passes / samples + update / BATCH for passes, update in zip(taken[::2], taken[1::2], strict=True)]
    print(f"step of Tiny/2, processor seconds a sample: original {seconds[0]:.2f}, ours {seconds[1]:.2f}, "
          f"ours with Heun pairs {seconds[2]:.2f}")  # fmt: skip
    return seconds[1] / seconds[0], seconds[2] / seconds[0]


def counted(arch: str, latent: int, kept_share: float = 1.0, guided: bool = False, one_hot: bool = False) -> int:
    """Operations of one forward pass, or of a guided one, on the meta device."""
    captions = (1, 16, 64) if arch == "MicroDiT_Nano_2" else (1, CAPTION, WIDTH)
    with torch.device("meta"):
        network = build(arch, latent, captions[2]).to("meta")
        patches = (latent // network.patch_size) ** 2
        kept = None if kept_share == 1 else torch.zeros(1, int(kept_share * patches), dtype=torch.long)
        samples = 2 if guided else 1
        inputs = torch.zeros(samples, 4, latent, latent), torch.zeros(samples), torch.zeros(captions)
    if one_hot:
        by_one_hot(network)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*inputs, None, kept)
    return counter.get_total_flops()


def print_counts() -> None:
    """The same ratios in operations, where no machine's noise is in them."""
    for arch in ("MicroDiT_Tiny_2", "MicroDiT_XL_2"):
        original, forward, guided = (counted(arch, LATENT, **how) for how in ({"one_hot": True}, {}, {"guided": True}))
        euler, heun = ((4 * forward + calls * guided) / (8 * original) for calls in (1, 2))
        print(f"operations of a step of {arch} over the original's: {euler:.3f}, with Heun pairs {heun:.3f}")
    for arch, latent in (("MicroDiT_Nano_2", 8), ("MicroDiT_Tiny_2", 64), ("MicroDiT_XL_2", 32), ("MicroDiT_XL_2", 64)):
        share = counted(arch, latent, kept_share=0.25) / counted(arch, latent)
        print(
            f"operations of {arch} at {latent} x {latent} latents, three of four patches masked, over none: {share:.3f}"
        )


def by_one_hot(network: MicroDiT) -> None:
    """Give a network the reference's expert layers."""
    for layer in network.modules():
        if isinstance(layer, ExpertChoice):
            layer.forward = partial(one_hot_experts, layer)


def masked_ratio(samples: int, turns: int) -> float:
    """Forward and backward of denoising, three of four patches masked, over all patches seen; Tiny/2 at 64 x 64."""
    network, step = build("MicroDiT_Tiny_2", LATENT, WIDTH), Step(samples)
    side = LATENT // network.patch_size
    kept = kept_patches(torch.randn(samples, side**2), 0.75)
    seen = patch_mask(kept, side, network.patch_size)

    def train(network: Network, seen: Tensor | None) -> None:
        denoise = edm_denoiser(network, SIGMA_DATA, step.captions)
        denoising_loss(denoise, step.clean, step.noise, step.sigma, SIGMA_DATA, seen).mean().backward()

    whole, part = least_seconds([partial(train, network, None), partial(train, masked(network, kept), seen)], turns)
    return part / whole


def expert_layers() -> list[tuple[ExpertChoice, int]]:
    """XL/2's, each kind once and how often it occurs."""
    variant, layers = VARIANTS["MicroDiT_XL_2"], dict[tuple[int, ...], tuple[ExpertChoice, int]]()
    mixers, backbone = product(range(variant.mixer_depth), [True]), product(range(variant.depth), [False])
    for layer, mixer in chain(mixers, backbone):
        if variant.has_experts(layer, mixer):
            with torch.device("meta"):
                experts = DiTBlock(variant, layer, mixer).mlp
            assert isinstance(experts, ExpertChoice)
            shape = tuple(experts.w1.shape)
            layers[shape] = experts, layers.get(shape, (experts, 0))[1] + 1
    return list(layers.values())


def moe_ratios(samples: int, turns: int) -> tuple[float, float]:
    """One-hot products over gather in time, and gather over one-hot products in peak memory, summed over the layers."""
    seconds, peaks = [0.0, 0.0], [0, 0]
    for described, times in expert_layers():
        torch.manual_seed(0)
        layer = described.to_empty(device="cpu")
        layer.initialise(0.02)
        x = torch.randn(samples, TOKENS, layer.w1.shape[1], requires_grad=True)  # as it comes from the layer before
        forms = [partial(one_hot_experts, layer), layer]
        with torch.no_grad():
            expected, ours = (form(x) for form in forms)
        assert ((ours - expected).norm() / expected.norm()).item() < 1e-5

        def both_ways(form: Callable[[Tensor], Tensor], layer: ExpertChoice = layer, x: Tensor = x) -> None:
            layer.zero_grad()
            x.grad = None
            form(x).sum().backward()

        taken = least_seconds([partial(both_ways, form) for form in forms], turns)
        for number, form in enumerate(forms):
            layer.zero_grad()
            x.grad = None
            with PeakMemory() as memory:
                form(x).sum().backward()
            seconds[number] += times * taken[number]
            peaks[number] += times * memory.peak
        described.to_empty(device="meta")
    return seconds[0] / seconds[1], peaks[1] / peaks[0]


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--samples", type=int, default=1, help="to one pass of a network")
    arguments.add_argument("--turns", type=int, default=4)
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    print_counts()
    speedup, memory = moe_ratios(EXPERT_SAMPLES, chosen.turns)
    print(f"expert layers of XL/2: time over ours {speedup:.2f}, our peak memory over theirs {memory:.2f}", flush=True)
    print(f"denoising with three of four patches masked, over none: {masked_ratio(chosen.samples, chosen.turns):.3f}")
    euler, heun = step_ratios(chosen.samples, chosen.turns)
    print(f"with Heun pairs step_ratio would be {heun:.3f}")
    print(f"step_ratio={euler:.3f} moe_speedup={speedup:.2f} moe_memory_ratio={memory:.2f}")


if __name__ == "__main__":
    main()
