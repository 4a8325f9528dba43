"""Print the figures of the model cards: how good the stand-ins of the `shapes` default are, on 2,000 fresh images.

    python scripts/measure_shapes_assets.py [--images 2000]

Images are rendered under a seed that nothing was trained on. Takes minutes on two cores.
"""

import argparse
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lcm_distill import assets
from lcm_distill.api import LatentDiffusion, open_model
from lcm_distill.config import load_preset
from lcm_distill.diffusion.samplers import TEACHER_SAMPLERS, Sampler
from lcm_distill.encoders.images import load_image_encoder
from lcm_distill.encoders.text import load_text_encoder
from lcm_distill.metrics.frechet import Moments, frechet_distance
from lcm_distill.shapes.captions import caption_hits, labels_of
from lcm_distill.shapes.network import load_shapes_network
from lcm_distill.shapes.scenes import ATTRIBUTES, brief_caption, render_images, scene_of

REFERENCE_SEED, OTHER_SEED, BATCH = 2_000_003, 3_000_003, 50


def real_images(seed: int, count: int) -> tuple[Tensor, list[str]]:
    """Images (count, 3, 64, 64), float32 in [0, 1], and their captions."""
    images, captions = render_images(seed, count, 64)
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, captions


class Measure:
    """The feature network, with the real images that others are compared with."""

    def __init__(self, reference: Tensor) -> None:
        self.network = load_shapes_network(assets.FEATURES)
        self.reference = Moments.of(self.classify(reference)[0])

    @torch.inference_mode()
    def classify(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Features (B, 128) and logits (B, values) by attribute of images, rounded to 8 bits as files are."""
        outputs = [self.network((batch * 255).round() / 255) for batch in images.split(BATCH)]
        logits = {name: torch.cat([part[name] for _, part in outputs]) for name in outputs[0][1]}
        return torch.cat([features for features, _ in outputs]), logits

    def distance(self, images: Tensor) -> float:
        """Fréchet distance of images (B, 3, 64, 64) to the reference."""
        return frechet_distance(Moments.of(self.classify(images)[0]), self.reference)

    def report(self, title: str, images: Tensor, captions: Sequence[str]) -> None:
        """Print the Fréchet distance to the reference, and how often images show what their captions name."""
        _, logits = self.classify(images)
        labels = [labels_of(caption) for caption in captions]
        accuracies = " ".join(f"{name} {accuracy(logits[name], labels, name):.4f}" for name in ATTRIBUTES)
        both = caption_hits(logits, labels).float().mean()
        print(
            f"{title}: Fréchet distance {self.distance(images):.2f}, shape and colour {both:.4f}, {accuracies}",
            flush=True,
        )


def accuracy(logits: Tensor, labels: Sequence[dict[str, int]], name: str) -> float:
    """Share of images classified as labelled, among those whose caption names the attribute."""
    wanted = torch.tensor([label.get(name, -1) for label in labels])
    return float((logits.argmax(1) == wanted)[wanted >= 0].float().mean())


def in_batches(work: Callable[[slice], Tensor], count: int) -> Tensor:
    """Results of `work` for slices that cover range(count), in one tensor."""
    return torch.cat([work(slice(first, min(first + BATCH, count))) for first in range(0, count, BATCH)])


def probe_text(captions: Sequence[str]) -> None:
    """Print the accuracy of a linear probe of the mean token, fitted on one half and tested on the other."""
    labels = [labels_of(caption) for caption in captions]
    embedded = load_text_encoder("shapes").encode(captions).mean(1)
    inputs, half = nn.functional.pad(embedded, (0, 1), value=1.0), len(captions) // 2
    for name, values in ATTRIBUTES.items():
        wanted = nn.functional.one_hot(torch.tensor([label[name] for label in labels]), len(values)).float()
        solved = torch.linalg.lstsq(inputs[:half], wanted[:half]).solution
        print(f"text tower, {name} by linear probe: {accuracy(inputs[half:] @ solved, labels[half:], name):.4f}")


def measure_vae(measure: Measure, images: Tensor) -> None:
    """Print PSNR of reconstructions, and their Fréchet distance."""
    vae, count = load_image_encoder("shapes"), len(images)
    noise = torch.randn(count, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    decoded = in_batches(lambda part: vae.decode(vae.encode(images[part] * 2 - 1, noise[part])), count)
    psnr = -10 * (decoded - images).square().mean().log10()
    print(
        f"VAE: {psnr:.1f} dB, Fréchet distance of reconstructions to other real images {measure.distance(decoded):.2f}"
    )


def measure_teacher(measure: Measure, kind: str, captions: Sequence[str]) -> None:
    """Print the figures of the teacher under every configured solver and number of steps."""
    settings = load_preset("shapes").evaluate
    teacher, guidance = open_model("shapes", "teacher"), settings.guidance[0]
    assert isinstance(teacher, LatentDiffusion)
    diffusion = teacher.diffusion
    for solver, steps in settings.teacher:
        sampler = TEACHER_SAMPLERS[solver](steps, diffusion.sigma_min, diffusion.sigma_max, diffusion.rho)

        def generate(part: slice, sampler: Sampler = sampler) -> Tensor:
            ids = range(part.start, part.stop)
            return teacher.generate(captions[part], None, guidance, seed=0, image_ids=ids, sampler=sampler)

        images = in_batches(generate, len(captions))
        measure.report(
            f"{kind} captions, {steps} {solver} step{'s' * (steps > 1)}, guidance {guidance:g}", images, captions
        )


def main(count: int) -> None:
    """Measure everything, cheapest first."""
    real, captions = real_images(REFERENCE_SEED, count)
    other, _ = real_images(OTHER_SEED, count)
    brief = [brief_caption(scene_of(caption), REFERENCE_SEED, index) for index, caption in enumerate(captions)]
    measure = Measure(real)
    print(f"real against real: Fréchet distance {measure.distance(other):.2f}")
    measure.report("real", real, captions)
    probe_text(captions)
    measure_vae(measure, other)
    for kind, chosen in (("full", captions), ("brief", brief)):
        measure_teacher(measure, kind, chosen)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2_000)
    main(parser.parse_args().images)
