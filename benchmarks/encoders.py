"""What `lcm precompute` encodes in a second with the real networks, whose weights are random, and what they take of it.

make bench-encoders      # prints last: images_per_second=... vae_share=... text_share=... peak_gb=...

The stage itself runs, at 512 px, over JPEG of 1024 px in archives, 2.7 to a caption. Time runs from the first caption
that is encoded to the last shard that is committed; shares are of that time. Networks are built, and have encoded one
batch, before; the last line is of the last batch size. Without CUDA it runs in float32, which is of use to see that it
does: `--images 8 --batch-sizes 4`.
"""

import argparse
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stage import IMAGES, decoded_per_second, write_data_set
from torch import Tensor

from lcm_distill.config import Config, load_preset
from lcm_distill.core.device import resolve_device
from lcm_distill.encoders import configured
from lcm_distill.encoders.images import load_image_encoder
from lcm_distill.encoders.text import load_text_encoder
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.precompute import precompute

GPU = torch.cuda.is_available()


class Stopwatch:
    """Items by what was done with them, how long each batch took, and when the first of them began.

    A GPU takes its own times, as the stage queues a batch while another is computed.
    """

    def __init__(self) -> None:
        self.spans, self.items, self.began = defaultdict[str, list[tuple[Any, Any]]](list), Counter[str](), 0.0

    def timed(self, name: str, work: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`work`, watched."""

        def run(items: Tensor | list[str], *others: Tensor) -> Tensor:
            self.began = self.began or time.perf_counter()
            start = mark()
            result = work(items, *others)
            self.spans[name].append((start, mark()))
            self.items[name] += len(items)
            return result

        return run

    def seconds(self, name: str) -> float:
        """What was spent on `name`, all of which is done."""
        return sum(seconds_between(start, end) for start, end in self.spans[name])


def mark() -> Any:
    """Now, in what is queued on the GPU, or on the clock."""
    if not GPU:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(start: Any, end: Any) -> float:
    """Between two marks that have passed."""
    return start.elapsed_time(end) / 1000 if GPU else end - start


def build_encoders(config: Config, watch: Stopwatch) -> None:
    """Have the stage find encoders that are built, warm and watched."""
    chosen, device, size = config.encoders, resolve_device(config.device), config.encoders.batch_size
    images = load_image_encoder(chosen.vae, chosen.weights, chosen.dtype).to(device)
    texts = load_text_encoder(chosen.text, chosen.weights, chosen.dtype).to(device)
    side = config.resolution
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (size, side, side, 3), np.uint8))
    images.encode_pixels(pixels, torch.randn(size, images.channels, side // 8, side // 8)).cpu()
    texts.encode(["a caption"] * size).cpu()
    images.encode_pixels = watch.timed("VAE", images.encode_pixels)
    texts.encode = watch.timed("text tower", texts.encode)
    configured.load_image_encoder = lambda *_: images
    configured.load_text_encoder = lambda *_: texts


def measure(root: Path, run: Path, size: int) -> dict[str, float]:
    """One pass of the stage."""
    config = load_preset(
        "microdit_xl_512",
        [f"data.root='{root}'", "encoders.weights=random", f"encoders.batch_size={size}", "cache.shard_rows=256"]
        + ([] if GPU else ["encoders.dtype=float32"]),
    )
    watch, folder = Stopwatch(), RunFolder(run)
    build_encoders(config, watch)
    if GPU:
        torch.cuda.reset_peak_memory_stats()
    folder.open(config)
    for _ in precompute(config, folder):
        pass
    wall = time.perf_counter() - watch.began
    rates = {f"{name} alone, a second": watch.items[name] / watch.seconds(name) for name in watch.items}
    return {
        "images_per_second": watch.items["VAE"] / wall,
        "vae_share": watch.seconds("VAE") / wall,
        "text_share": watch.seconds("text tower") / wall,
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if GPU else float("nan"),
        **rates,
    }


def main() -> None:
    """Measure in a temporary folder and print."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--images", type=int, default=IMAGES)
    arguments.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 64])
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        contents = write_data_set(root / "data set", options.images)
        print(torch.cuda.get_device_name() if GPU else "CPU", flush=True)
        print(f"the cores decode {decoded_per_second(contents):.0f} images a second", flush=True)
        for size in options.batch_sizes:
            figures = measure(root / "data set", root / f"run-{size}", size)
            print(f"batch {size}: " + ", ".join(f"{name} {value:.3g}" for name, value in figures.items()), flush=True)
    last = ("images_per_second", "vae_share", "text_share", "peak_gb")
    print(" ".join(f"{name}={figures[name]:.3g}" for name in last))


if __name__ == "__main__":
    main()
