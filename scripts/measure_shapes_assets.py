"""Print the figures of the model cards: what the stand-ins of the `shapes` default do on 2,000 fresh images.

    python scripts/measure_shapes_assets.py [--images 2000]

Images are drawn under a seed that nothing was trained on. Takes minutes on two cores.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from lcm_distill import assets
from lcm_distill.api import LatentDiffusion, open_model
from lcm_distill.config import load_preset
from lcm_distill.encoders.images import load_image_encoder
from lcm_distill.encoders.text import load_text_encoder
from lcm_distill.evaluation.features import labels_of
from lcm_distill.metrics.frechet import Moments, frechet_distance
from lcm_distill.shapes.captions import caption_hits
from lcm_distill.shapes.network import load_shapes_network
from lcm_distill.shapes.scenes import ATTRIBUTES, brief_caption, draw, scene_of

REFERENCE_SEED, FLOOR_SEED, BATCH = 2_000_003, 3_000_003, 50


def render_images(seed: int, count: int) -> tuple[Tensor, list[str]]:
    """Images (count, 3, 64, 64), float32 in [0, 1], and their captions."""
    images, captions = zip(*(draw(seed, index, 64) for index in range(count)), strict=True)
    stacked = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255, list(captions)


class Eye:
    """The metric network, with the real images that others are compared with."""

    def __init__(self, reference: Tensor) -> None:
        self.network = load_shapes_network(assets.FEATURES)
        self.reference = Moments.of(self.look(reference)[0])

    @torch.inference_mode()
    def look(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Features and logits of images, rounded to 8 bits as files are."""
        seen = [self.network((batch * 255).round() / 255) for batch in images.split(BATCH)]
        logits = {name: torch.cat([named[name] for _, named in seen]) for name in seen[0][1]}
        return torch.cat([features for features, _ in seen]), logits

    def judge(self, title: str, images: Tensor, captions: list[str]) -> None:
        """Print the Fréchet distance to the reference, and how often what the captions name is seen."""
        features, logits = self.look(images)
        distance, labels = frechet_distance(Moments.of(features), self.reference), list(map(labels_of, captions))
        seen = " ".join(f"{name} {accuracy(logits[name], labels, name):.4f}" for name in ATTRIBUTES)
        both = caption_hits(logits, labels).float().mean()
        print(f"{title}: Fréchet distance {distance:.2f}, shape and colour {both:.4f}, {seen}", flush=True)


def accuracy(logits: Tensor, labels: list[dict[str, int]], name: str) -> float:
    """Share of images whose attribute is seen as labelled, among those that have the label."""
    wanted = torch.tensor([label.get(name, -1) for label in labels])
    return float((logits.argmax(1) == wanted)[wanted >= 0].float().mean())


def in_batches(work: Callable[[slice], Tensor], count: int) -> Tensor:
    """What `work` makes of each slice of `count` items, in one tensor."""
    return torch.cat([work(slice(first, first + BATCH)) for first in range(0, count, BATCH)])


def probe_text(captions: list[str], labels: list[dict[str, int]]) -> None:
    """Print how well a linear map of the mean token names each attribute, fitted on one half, read on the other."""
    embedded = load_text_encoder("shapes").encode(captions).mean(1)
    inputs, half = nn.functional.pad(embedded, (0, 1), value=1.0), len(captions) // 2
    for name, values in ATTRIBUTES.items():
        wanted = nn.functional.one_hot(torch.tensor([label[name] for label in labels]), len(values)).float()
        solved = torch.linalg.lstsq(inputs[:half], wanted[:half]).solution
        print(f"text tower, {name} by linear probe: {accuracy(inputs[half:] @ solved, labels[half:], name):.4f}")


def main(count: int) -> None:
    """Measure everything, cheapest first."""
    real, captions = render_images(REFERENCE_SEED, count)
    other, _ = render_images(FLOOR_SEED, count)
    brief = [brief_caption(scene_of(caption), REFERENCE_SEED, index) for index, caption in enumerate(captions)]
    eye = Eye(real)
    print(f"real against real: Fréchet distance {frechet_distance(Moments.of(eye.look(other)[0]), eye.reference):.2f}")
    eye.judge("real", real, captions)
    probe_text(captions, list(map(labels_of, captions)))
    vae = load_image_encoder("shapes")
    noise = torch.randn(count, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    remade = in_batches(lambda part: vae.decode(vae.encode(other[part] * 2 - 1, noise[part])), count)
    print(f"VAE: {-10 * (remade - other).square().mean().log10():.1f} dB, Fréchet distance of reconstructions to other")
    print(f"    real images {frechet_distance(Moments.of(eye.look(remade)[0]), eye.reference):.2f}")
    settings = load_preset("shapes").evaluate
    teacher = open_model("shapes", "teacher")
    assert isinstance(teacher, LatentDiffusion)
    for kind, said in (("full", captions), ("brief", brief)):
        for solver, steps in settings.teacher:
            teacher.solver = solver
            drawn = in_batches(
                lambda part, said=said, steps=steps: teacher.generate(
                    said[part], steps, settings.guidance, seed=0, image_ids=range(count)[part]
                ),
                count,
            )
            eye.judge(f"{kind} captions, {steps} {solver} steps, guidance {settings.guidance:g}", drawn, said)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2_000)
    main(parser.parse_args().images)
