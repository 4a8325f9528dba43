"""What `lcm precompute` takes beyond its encoders: reading, decoding, checksums, writing, the manifest.

make bench-stage      # prints last: stage_overhead=... decoded_per_second=...

Encoders that only wait stand for a GPU: so long an image of 512 px, so long a caption, whatever the batch. Images
are JPEG of 1024 px in archives as JourneyDB has them, 2.7 to a caption. Overhead is wall time less the encoders' time,
over wall time, from the first image or caption that is encoded to the last shard that is committed.
"""

import argparse
import io
import json
import tarfile
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lcm_distill.config import load_preset
from lcm_distill.data.sources.journeydb import ANNOTATIONS, IMAGES
from lcm_distill.data.transforms import decode, resize_and_crop
from lcm_distill.encoders import configured
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.precompute import precompute

ARCHIVES, COUNT, A_CAPTION, SIDE = 2, 4_096, 2.7, 1024
CAPTION_SECONDS = 0.004
"""A caption of DFN5B's text tower at some 250 a second."""


class Clock:
    """Waits, and knows how long it has waited."""

    def __init__(self) -> None:
        self.waited, self.began = 0.0, 0.0

    def wait(self, seconds: float) -> None:
        """Wait, and count it as the encoder's."""
        now = time.perf_counter()
        self.began = self.began or now
        time.sleep(seconds)
        self.waited += time.perf_counter() - now


class WaitingVae:
    """In place of SDXL's VAE."""

    scaling_factor, channels, downsampling = 0.13025, 4, 8
    normalisation: ClassVar[dict[str, list[float]]] = {}

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def to(self, device: object) -> "WaitingVae":
        return self

    def encode_pixels(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """The noise, after a while."""
        self.clock.wait(self.seconds * len(pixels))
        return noise


class WaitingTower:
    """In place of DFN5B's text tower."""

    width, context_length = 1024, 77

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def to(self, device: object) -> "WaitingTower":
        return self

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Nothing but zeros, after a while."""
        self.clock.wait(CAPTION_SECONDS * len(captions))
        return torch.zeros(len(captions), self.context_length, self.width)


def photograph(generator: np.random.Generator) -> bytes:
    """A JPEG with the detail, and so the size, of an image one looks at."""
    coarse = generator.integers(0, 255, (SIDE // 16, SIDE // 16, 3), np.uint8)
    fine = generator.normal(0, 6, (SIDE, SIDE, 1))
    smooth = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
    content = io.BytesIO()
    Image.fromarray((smooth + fine).clip(0, 255).astype(np.uint8)).save(content, "JPEG", quality=90)
    return content.getvalue()


def write_data_set(root: Path, images: int = COUNT) -> list[bytes]:
    """Archives and annotations below `root`; some of the images are rendered once and stored often."""
    generator = np.random.default_rng(0)
    contents, lines = [photograph(generator) for _ in range(32)], []
    (root / IMAGES).mkdir(parents=True)
    for archive in range(ARCHIVES):
        with tarfile.open(root / IMAGES / f"{archive:03d}.tgz", "w:gz", compresslevel=1) as tar:
            for number in range(archive * images // ARCHIVES, (archive + 1) * images // ARCHIVES):
                member = tarfile.TarInfo(f"{archive:03d}/{number:06d}.jpg")
                content = contents[number % len(contents)]
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                caption = f"caption {int(number / A_CAPTION)}"
                lines.append(json.dumps({"img_path": f"./{member.name}", "prompt": caption}))
    (root / ANNOTATIONS).write_text("\n".join(lines) + "\n")
    return contents


def decoded_per_second(contents: list[bytes]) -> float:
    """Images that all cores decode and resize when they do nothing else."""
    with ThreadPoolExecutor() as threads:
        began = time.perf_counter()
        count = sum(1 for _ in threads.map(lambda content: resize_and_crop(decode(content, 256), 512), contents * 4))
        return count / (time.perf_counter() - began)


def overhead(root: Path, run: Path, seconds: float) -> float:
    """Share of the wall time that the encoders did not wait."""
    clock = Clock()
    configured.load_image_encoder = lambda *_: WaitingVae(clock, seconds)
    configured.load_text_encoder = lambda *_: WaitingTower(clock)
    config = load_preset("microdit_xl_512", [f"data.root='{root}'", "encoders.batch_size=64"])
    folder = RunFolder(run)
    folder.open(config)
    for _ in precompute(config, folder):
        pass
    wall = time.perf_counter() - clock.began
    return 1 - clock.waited / wall


def main() -> None:
    """Measure in a temporary folder and print."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--images-per-second", type=float, nargs="*", default=[40.0])
    rates = arguments.parse_args().images_per_second
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        contents = write_data_set(root / "data set")
        print(f"images of {sum(map(len, contents)) / len(contents) / 1e3:.0f} kB")
        decoded = decoded_per_second(contents)
        shares = [overhead(root / "data set", root / f"run-{number}", 1 / rate) for number, rate in enumerate(rates)]
    for rate, share in zip(rates, shares, strict=True):
        print(f"encoder of {rate:.0f} images/s: overhead {share:.3f}")
    print(f"stage_overhead={shares[0]:.3f} decoded_per_second={decoded:.0f}")


if __name__ == "__main__":
    main()
