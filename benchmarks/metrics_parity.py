# The peers are installed for this benchmark alone.
# pyright: reportMissingImports=false
"""Features and figures of peers, from the same image files by their own code, beside ours."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from cleanfid import fid as clean_fid
from cleanfid.resize import build_resizer
from PIL import Image
from pytorch_fid import fid_score
from pytorch_fid import inception as pytorch_inception
from tests.metrics.recorded import FACTS, FEATURES, recorded_image
from torch import Tensor
from torch_fidelity import metric_fid, metric_kid, metric_prc
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torch_fidelity.utils import create_feature_extractor, extract_featuresdict_from_input_id

from lcm_distill.metrics import preprocessing
from lcm_distill.metrics.frechet import Moments, frechet_distance
from lcm_distill.metrics.inception_extractor import InceptionExtractor
from lcm_distill.metrics.kernel_distances import kernel_inception_distance
from lcm_distill.metrics.neighbours import precision, recall
from lcm_distill.metrics.protocol import OpenedProtocol
from lcm_distill.metrics.reference_files import image_files, read_image
from lcm_distill.metrics.registry import find_protocol

CPU = torch.device("cpu")
SIDE, COMPARED, BATCH = 16, 8, 8
CENTRES = {"t2i-benchmark": 127.5, "pytorch-fid": 127.5, "gigagan": 128.0, "torch-fidelity": 128.0}
WIDTH = 2048

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
