# The types of torch.from_numpy are partial.
# pyright: reportUnknownMemberType=false
# PyTorch declares some of its functions without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Statistics of reference images: from a published `.npz`, or of a folder of images and kept by its content."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image

from lcm_distill.core.errors import DataError, UserError, one_line
from lcm_distill.core.hashing import bytes_sha256, file_sha256
from lcm_distill.core.regular_files import open_regular, read_regular
from lcm_distill.formats.images import IMAGE_SUFFIXES, MAX_IMAGE_BYTES, open_image
from lcm_distill.metrics.feature_sample import Sample
from lcm_distill.metrics.frechet import Gaussian
from lcm_distill.metrics.protocol import OpenedProtocol
from lcm_distill.metrics.statistics import Statistics

ARRAYS = ("mu", "sigma", "features", "ids", "draws")
"""Names in a file of statistics; others are left alone."""
COUNT = "count"
"""Name of the number of images, in files that this package wrote; those of earlier versions lack it."""
REMEDY = "take a file of reference statistics"


def image_files(folder: Path) -> list[Path]:
    """The images anywhere below a folder, in order of name.

    Raises:
        UserError: there are none.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not files:
        raise UserError(f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    return files


def read_image(path: Path, content: bytes | None = None) -> Image.Image:
    """An image, decoded, in RGB.

    Args:
        content: of the file, if it has been read already.

    Raises:
        DataError: it cannot be read; the message names it.
    """
    try:
        with open_image(read_regular(path, MAX_IMAGE_BYTES) if content is None else content) as image:
            return image.convert("RGB")
    except Exception as error:  # Pillow raises whatever malformed bytes lead it to
        raise DataError(f"{path} cannot be read as an image ({one_line(error)}): replace it or remove it") from error


def folder_identity(folder: Path, files: Sequence[Path], opened: OpenedProtocol) -> str:
    """Hex digest of everything that decides the statistics: names and bytes of the files, protocol and weights.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256(repr((opened.protocol.name, opened.extractor.name, opened.extractor.sha256)).encode())
    for path in files:
        content = file_sha256(path)
        digest.update(repr((str(path.relative_to(folder)), path.stat().st_size, content)).encode())
    return digest.hexdigest()


def write_statistics(path: Path, statistics: Statistics, identity: str = "") -> None:
    """Write a file that `read_statistics` reads, and any program that expects `mu` and `sigma`.

    Args:
        identity: of what the statistics are of.
    """
    arrays = {"mu": statistics.moments.mean().numpy(), "sigma": statistics.moments.covariance().numpy()}
    if statistics.images is not None:
        arrays[COUNT] = np.array(statistics.images)
    if sample := statistics.sample:
        arrays |= {"features": sample.features.numpy(), "ids": sample.ids.numpy(), "draws": sample.draws.numpy()}
    with path.open("wb") as file:
        sealed = {**arrays, "identity": np.array(identity), "sha256": np.array(_sha256(arrays, identity))}
        np.savez(file, **sealed)  # pyright: ignore[reportArgumentType]


def read_statistics(path: Path, width: int, identity: str = "") -> Statistics:
    """Reference statistics of features of this width: `mu` and `sigma`, and features and number of images if kept.

    Args:
        identity: of what the statistics have to be of; empty takes any. Files of other programs and of earlier
            versions have none, and no hash.

    Raises:
        UserError: the file is not there, holds something else, values that are not finite, or features of another
            width; the message names it.
        DataError: it is not what was written.
        OSError: it cannot be opened, or is not a regular file.
    """
    if not path.exists():
        raise UserError(f"{path} is not there: it should hold the reference statistics, mu and sigma")
    if not path.is_file():
        raise UserError(f"{path} is no regular file: {REMEDY}")
    with open_regular(path) as file:
        try:
            stored, found, seal = _arrays(file)
            arrays = {name: torch.from_numpy(array) for name, array in stored.items()}
            mu, sigma = arrays["mu"].double(), arrays["sigma"].double()
        except Exception as error:  # numpy and zipfile raise a dozen kinds over a damaged file
            raise UserError(f"{path} is no .npz of mu and sigma: {REMEDY}") from error
    if seal is not None and (seal != _sha256(stored, found) or (identity and identity != found)):
        raise DataError(f"{path} is not what was written: {REMEDY}")
    if mu.shape != (width,) or sigma.shape != (width, width):
        raise UserError(
            f"{path}: mu has shape {tuple(mu.shape)} and sigma {tuple(sigma.shape)}, but the network gives {width:,} "
            "features: take statistics that were made by this protocol"
        )
    if broken := [name for name, array in arrays.items() if not array.isfinite().all()]:
        raise UserError(f"{path}: {broken[0]} has values that are not finite: {REMEDY}")
    count = int(arrays[COUNT]) if COUNT in arrays else None
    return Statistics(Gaussian(mu, sigma, count), _sample(path, arrays, width))


def _arrays(file: BinaryIO) -> tuple[dict[str, np.ndarray], str, str | None]:
    """The arrays of the file that are known, real numbers all, their identity and hash; nothing is unpickled."""
    with np.load(file, allow_pickle=False) as stored:
        seal = str(stored["sha256"]) if "sha256" in stored.files else None
        known = ARRAYS if seal is None else (*ARRAYS, COUNT)
        found = {name: stored[name] for name in known if name in stored.files}
        identity = str(stored["identity"]) if "identity" in stored.files else ""
    if any(array.dtype.kind not in "fiu" for array in found.values()):
        raise TypeError("an array is not of real numbers")
    return found, identity, seal


def _sample(path: Path, arrays: Mapping[str, torch.Tensor], width: int) -> Sample | None:
    found = [arrays[name] for name in ("features", "ids", "draws") if name in arrays]
    if not found:
        return None
    count = len(found[0])
    if [array.shape for array in found] != [(count, width), (count,), (count,)]:
        raise UserError(f"{path}: its features, ids and draws do not belong together: {REMEDY}")
    features, ids, draws = found
    return Sample(count, features, ids, draws)


def _sha256(arrays: Mapping[str, np.ndarray], identity: str) -> str:
    described = (part for name in sorted(arrays) for part in _parts(name, arrays[name]))
    return bytes_sha256([identity.encode(), *described])


def _parts(name: str, array: np.ndarray) -> tuple[bytes, bytes]:
    return f"{name} {array.dtype} {array.shape}".encode(), np.ascontiguousarray(array).tobytes()
