"""`shapes` on disk: the rendered images as JPEG files with annotations, in JourneyDB's own layout."""

import functools
import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from lcm_distill.core.child_process import follow_parent
from lcm_distill.core.io_errors import naming_file
from lcm_distill.data.sources.journeydb import ANNOTATIONS, IMAGES
from lcm_distill.shapes.scenes import brief_caption, render_image, scene_of

IMAGES_A_FOLDER = 1_000
JPEG_QUALITY = 95
FEW = 500
"""Images that are rendered before a second process has started."""


def write_images(root: Path, seed: int, count: int, width: int) -> Iterator[tuple[int, str]]:
    """Render images 0 .. count-1 below `root`; more than `FEW` on all cores.

    Yields:
        how many are rendered, and the annotation line of the last one. The lines make up the annotation file,
        which is the caller's to write when all images are there.
    """
    for folder in range(-(-count // IMAGES_A_FOLDER)):
        (root / IMAGES / f"{folder:03d}").mkdir(parents=True, exist_ok=True)
    work = functools.partial(_write_image, root, seed, width)
    if count <= FEW:
        yield from enumerate(map(work, range(count)), start=1)
        return
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=follow_parent) as pool:
        yield from enumerate(pool.map(work, range(count), chunksize=50), start=1)


def _write_image(root: Path, seed: int, width: int, index: int) -> str:
    name = uuid.uuid5(uuid.NAMESPACE_OID, f"shapes/{seed}/{index}")
    path = f"{index // IMAGES_A_FOLDER:03d}/{name}.jpg"
    image, caption = render_image(seed, index, width)
    with naming_file(file := root / IMAGES / path):
        image.save(file, quality=JPEG_QUALITY)
    return _annotation(f"./{path}", caption, brief_caption(scene_of(caption), seed, index))


def annotations_path(root: Path) -> Path:
    """Where the annotation lines belong."""
    return root / ANNOTATIONS


def _annotation(path: str, caption: str, brief: str) -> str:
    scene = scene_of(caption)
    record = {
        "img_path": path,
        "prompt": caption,
        "Task1": {
            "Style": ["flat illustration"],
            "Content": [scene.shape, scene.colour, scene.size],
            "Atmosphere": [scene.background],
            "Others": [scene.position],
        },
        "Task2": {"Caption": brief},
    }
    return json.dumps(record)
