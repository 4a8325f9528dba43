# The peers are installed for this benchmark alone.
# pyright: reportMissingImports=false
"""Figures against the field's own code, the Fréchet distance against scipy's, and what reading images costs.

make bench-metrics    # prints last: fid_parity=... frechet_speedup=... extract_overhead=...

All share one Inception whose weights are drawn from its tensors' names. Peers read the same image files by their own
code; distances are of the first 8 features, which 16 images a side determine.
"""

import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from cleanfid import fid as clean_fid
from cleanfid.resize import build_resizer
from PIL import Image
from pytorch_fid import fid_score
from pytorch_fid import inception as pytorch_inception
from tests.metrics.recorded import FACTS, FEATURES, inception_weights, recorded_image
from torch import Tensor
from torch_fidelity import metric_fid, metric_kid, metric_prc
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torch_fidelity.utils import create_feature_extractor, extract_featuresdict_from_input_id

from lcm_distill.metrics import preprocessing
from lcm_distill.metrics.frechet import Moments, frechet_distance
from lcm_distill.metrics.inception import InceptionExtractor
from lcm_distill.metrics.kernels import kernel_inception_distance
from lcm_distill.metrics.neighbours import precision, recall
from lcm_distill.metrics.protocol import OpenedProtocol
from lcm_distill.metrics.references import image_files, read_image
from lcm_distill.metrics.registry import find_protocol
from lcm_distill.metrics.statistics import Statistics
from lcm_distill.pipeline.prefetch import prefetch_map

CPU = torch.device("cpu")
SIDE, COMPARED, BATCH = 16, 8, 8
CENTRES = {"t2i-benchmark": 127.5, "pytorch-fid": 127.5, "gigagan": 128.0, "torch-fidelity": 128.0}
WIDTH, READ, ROUNDS = 2048, 16, 2

Sides = tuple[Tensor, Tensor]


def write_images(root: Path) -> tuple[Path, Path]:
    """Two folders of 16 images, all of one size, as pytorch-fid and torch-fidelity want them."""
    for i in range(2 * SIDE):
        folder = root / ("a" if i < SIDE else "b")
        folder.mkdir(exist_ok=True)
        recorded_image(i).resize((360, 280)).save(folder / f"{i:02d}.png")
    return root / "a", root / "b"


def ours(name: str, weights: Path) -> OpenedProtocol:
    """A protocol with these weights in place of the published ones."""
    return OpenedProtocol(find_protocol(name), InceptionExtractor(weights, CPU, CENTRES[name]))


def our_features(opened: OpenedProtocol, folder: Path) -> Tensor:
    """Features of a folder's images."""
    prepared = (opened.protocol.prepare(read_image(path)) for path in image_files(folder))
    return torch.cat(list(opened.features(prepared, BATCH)))


def sides_of(features: Callable[[Path], Tensor], folders: tuple[Path, Path]) -> Sides:
    """Features of both folders."""
    return features(folders[0]), features(folders[1])


def distance(a: Tensor, b: Tensor) -> float:
    """Ours, of the features compared."""
    return frechet_distance(Moments.of(a[:, :COMPARED]), Moments.of(b[:, :COMPARED]))


def numpy_distance(function: Callable[..., float], a: Tensor, b: Tensor) -> float:
    """A peer's, of the same."""
    x, y = (side[:, :COMPARED].double().numpy() for side in (a, b))
    return float(function(x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False)))


def pytorch_network(weights: Path) -> torch.nn.Module:
    """pytorch-fid's Inception, which would download its weights."""
    pytorch_inception.load_state_dict_from_url = lambda *_, **__: torch.load(weights)
    return pytorch_inception.InceptionV3([3]).eval()


def pytorch_fid_features(network: torch.nn.Module, folder: Path) -> Tensor:
    """By pytorch-fid, from files."""
    files = image_files(folder)
    return torch.from_numpy(fid_score.get_activations(files, network, BATCH, WIDTH, "cpu", num_workers=0))


def clean_fid_features(network: torch.nn.Module, folder: Path) -> Tensor:
    """By clean-fid, from files; its network is pytorch-fid's here, fed as clean-fid feeds its own."""

    def model(batch: Tensor) -> Tensor:
        x = batch / 128 - 1
        for block in cast(torch.nn.ModuleList, network.blocks):
            x = block(x)
        return x.flatten(1)

    features = clean_fid.get_folder_features(
        str(folder), model=model, num_workers=0, batch_size=BATCH, device=CPU, mode="clean", verbose=False,
        custom_image_tranform=lanczos_square,
    )  # fmt: skip
    return torch.from_numpy(features)


def lanczos_square(pixels: np.ndarray) -> np.ndarray:
    """What GigaGAN's protocol does before clean-fid."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(pixels[top : top + side, left : left + side])
    return np.asarray(square.resize((256, 256), Image.Resampling.LANCZOS))


def torch_fidelity_features(weights: Path, folder: Path) -> Tensor:
    """By torch-fidelity, from files."""
    options = {
        "input1": str(folder), "cuda": False, "batch_size": BATCH, "verbose": False, "samples_shuffle": False,
        "feature_extractor_weights_path": str(weights),
    }  # fmt: skip
    extractor = create_feature_extractor("inception-v3-compat", ["2048"], **options)
    return extract_featuresdict_from_input_id(1, extractor, **options)["2048"]


def torch_fidelity_distance(a: Tensor, b: Tensor) -> float:
    """torch-fidelity's, of the features compared."""
    statistics = (metric_fid.fid_features_to_statistics(side[:, :COMPARED]) for side in (a, b))
    return metric_fid.fid_statistics_to_metric(*statistics, False)[metric_fid.KEY_METRIC_FID]


def parity(root: Path, weights: Path) -> float:
    """Largest relative difference of a distance to the one that the protocol's own code gives."""
    folders = write_images(root)
    network = pytorch_network(weights)
    peers: dict[str, tuple[Callable[[Path], Tensor], Callable[[Tensor, Tensor], float]]] = {
        "pytorch-fid": (
            partial(pytorch_fid_features, network), partial(numpy_distance, fid_score.calculate_frechet_distance)
        ),
        "gigagan": (partial(clean_fid_features, network), partial(numpy_distance, clean_fid.frechet_distance)),
        "torch-fidelity": (partial(torch_fidelity_features, weights), torch_fidelity_distance),
    }  # fmt: skip
    print(f"{'protocol':<15} {'ours':>14} {'theirs':>14} {'relative':>9} {'features':>9}")
    worst = show_parity("t2i-benchmark", recorded_images(weights), recorded_features(), recorded_distance)
    compared: dict[str, tuple[Sides, Sides]] = {}
    for name, (extract, measure) in peers.items():
        opened = ours(name, weights)
        us, them = compared[name] = sides_of(partial(our_features, opened), folders), sides_of(extract, folders)
        worst = max(worst, show_parity(name, us, them, measure))
    others(*compared["torch-fidelity"])
    pixels(folders[0])
    return worst


def recorded_images(weights: Path) -> Sides:
    """Our features of the images whose features text2image-benchmark's code was recorded for."""
    opened = ours("t2i-benchmark", weights)
    features = torch.cat(list(opened.features((opened.protocol.prepare(recorded_image(i)) for i in range(32)), BATCH)))
    return features[:SIDE], features[SIDE:]


def recorded_features() -> Sides:
    """Theirs."""
    features = torch.from_numpy(FEATURES["features"])
    return features[:SIDE], features[SIDE:]


def recorded_distance(a: Tensor, b: Tensor) -> float:
    """The one its code printed."""
    return FACTS["frechet_first8_first16_vs_last16"]


def show_parity(name: str, us: Sides, them: Sides, measure: Callable[[Tensor, Tensor], float]) -> float:
    """Print a row; returns the relative difference of the distances."""
    here, there = distance(*us), measure(*them)
    relative = abs(here - there) / there
    apart = float(torch.linalg.norm(torch.cat(us) - torch.cat(them)) / torch.linalg.norm(torch.cat(them)))
    print(f"{name:<15} {here:14.9f} {there:14.9f} {relative:9.1e} {apart:9.1e}")
    return relative


def others(us: Sides, them: Sides) -> None:
    """KID, precision and recall of torch-fidelity beside ours, all images to a subset."""
    kid = metric_kid.kid_features_to_metric(*them, kid_subsets=1, kid_subset_size=SIDE, verbose=False)
    shares = metric_prc.prc_features_to_metric(*them, verbose=False)
    rows = {
        "kid": (kernel_inception_distance(*us), kid[metric_kid.KEY_METRIC_KID_MEAN]),
        "precision": (precision(*us), shares[metric_prc.KEY_METRIC_PRECISION]),
        "recall": (recall(*us), shares[metric_prc.KEY_METRIC_RECALL]),
    }
    for name, (here, there) in rows.items():
        print(f"{name:<15} {here:14.9f} {there:14.9f}")


def pixels(folder: Path) -> None:
    """Largest difference of a prepared pixel, of 255."""
    images = [read_image(path) for path in image_files(folder)]
    clean, floats = build_resizer("clean"), [preprocessing.unchanged(image).float() for image in images]

    def tensorflow(x: Tensor) -> Tensor:
        return interpolate_bilinear_2d_like_tensorflow1x(x[None], (299, 299), align_corners=False)[0]

    theirs = {
        "clean_fid": [torch.from_numpy(clean(np.asarray(image))).permute(2, 0, 1) for image in images],
        "torch_fidelity": [tensorflow(image) for image in floats],
    }
    for name, prepared in theirs.items():
        ours = [getattr(preprocessing, name)(image) for image in images]
        worst = max(float((a - b).abs().max()) for a, b in zip(ours, prepared, strict=True))
        print(f"pixels of {name}: at most {worst:.1e} apart, of 255")


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
    done = subprocess.run([sys.executable, __file__, "memory"], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure in a temporary folder and print."""
    warnings.simplefilter("ignore")  # peers' own
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        weights = root / "inception.pth"
        torch.save(inception_weights(), weights)
        apart = parity(root, weights)
        costs = overhead(root / "read", weights)
    print(f"statistics of 30,000 x 2,048 features: {statistics_megabytes():.0f} MB")
    print(f"fid_parity={apart:.1e} frechet_speedup={speedup():.1f} extract_overhead={costs:.3f}")


if __name__ == "__main__":
    memory() if sys.argv[1:] == ["memory"] else main()
