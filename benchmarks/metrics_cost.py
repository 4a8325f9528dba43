# The peers are installed for this benchmark alone.
# pyright: reportMissingImports=false
"""What a Fréchet distance costs beside pytorch-fid's, and what reading images and summing statistics cost."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metrics_parity import BATCH, WIDTH, ours
from pytorch_fid import fid_score
from tests.metrics.recorded import recorded_image
from torch import Tensor

from lcm_distill.metrics.frechet import Moments, frechet_distance
from lcm_distill.metrics.reference_files import image_files, read_image
from lcm_distill.metrics.statistics import Statistics
from lcm_distill.pipeline.prefetch import prefetch_map

READ, ROUNDS = 16, 2


def speedup() -> float:
    """Seconds of pytorch-fid's distance, which is scipy's `sqrtm` above all, over ours, at 2,048 dimensions."""
    generator = torch.Generator().manual_seed(0)

    def moments() -> Moments:
        spread = torch.arange(1, WIDTH + 1, dtype=torch.float64) ** -0.6
        mixed, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH, dtype=torch.float64, generator=generator))
        return Moments.of(torch.randn(2 * WIDTH, WIDTH, dtype=torch.float64, generator=generator) * spread @ mixed)

    a, b = moments(), moments()
    arrays = [array.numpy() for side in (a, b) for array in (side.mean(), side.covariance())]
    seconds, here = timed(frechet_distance, a, b)
    theirs, there = timed(fid_score.calculate_frechet_distance, *arrays)
    print(f"2,048 dimensions: ours {here:.9f}, pytorch-fid {there:.9f}, relative {abs(here - there) / there:.1e}")
    print(f"ours {seconds:.1f} s, pytorch-fid {theirs:.1f} s")
    return theirs / seconds


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds of this thread on its core, which other work on the machine does not lengthen, and the result."""
    began = time.thread_time()
    result = function(*arguments)
    return time.thread_time() - began, result


def overhead(root: Path, weights: Path) -> float:
    """What reading, preparing and summing add to the network's time, when decoding has a core of its own.

    The slower of both cores counts: the network's with batches and sums, or the decoder's.
    """
    root.mkdir()
    for i in range(READ):
        recorded_image(8 * i).save(root / f"{i:03d}.jpeg", quality=90)
    opened, files = ours("t2i-benchmark", weights), image_files(root)
    prepared = [opened.protocol.prepare(read_image(path)) for path in files]

    def bare() -> None:
        for start in range(0, READ, BATCH):
            opened.extractor(torch.stack(prepared[start : start + BATCH]))

    def whole() -> float:
        """Returns the decoder's seconds."""
        decoding = []

        def decode(path: Path) -> Tensor:
            seconds, tensor = timed(lambda: opened.protocol.prepare(read_image(path)))
            decoding.append(seconds)
            return tensor

        total = None
        for number, features in enumerate(opened.features(prefetch_map(decode, files, 1, 2 * BATCH), BATCH)):
            part = opened.statistics(features, range(number * BATCH, (number + 1) * BATCH))
            total = part if total is None else total + part
        return sum(decoding)

    ratios = []
    for _ in range(ROUNDS + 1):
        network, _ = timed(bare)
        ours_seconds, decoding = timed(whole)
        ratios.append(max(ours_seconds, decoding) / network)
        print(
            f"{READ} JPEG of 512 px: network {network:.2f} s; with sums {ours_seconds:.2f} s, decoder {decoding:.2f} s"
        )
    return float(np.median(ratios[1:])) - 1


def memory() -> None:
    """Print by how many megabytes the peak rises while statistics of 30,000 x 2,048 features are summed."""
    torch.set_num_threads(1)
    Statistics.of(torch.randn(10, WIDTH), range(10), 10)  # what libraries take once
    before = peak_kilobytes()
    total = Statistics.of(torch.randn(1_000, WIDTH), range(1_000), 10_000)
    for start in range(1_000, 30_000, 1_000):
        total += Statistics.of(torch.randn(1_000, WIDTH), range(start, start + 1_000), 10_000)
    print((peak_kilobytes() - before) / 1024)


def peak_kilobytes() -> int:
    """The most this process has held; `getrusage` would tell that of the process it was started from as well."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])


def statistics_megabytes() -> float:
    """`memory` in a process of its own."""
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    memory()
