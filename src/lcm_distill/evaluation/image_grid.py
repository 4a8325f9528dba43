"""Generated images side by side, a column for each sampling, in a file that records whose images they are."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lcm_distill.core.errors import DataError
from lcm_distill.core.io_errors import require_reachable
from lcm_distill.core.json import parse_json
from lcm_distill.evaluation.image_sets import ImageSet
from lcm_distill.evaluation.prompt_files import Prompt
from lcm_distill.pipeline.atomic_writes import commit_file
from lcm_distill.report.grid import labelled_grid

GRID_ROWS = 6
AMONG = 3
"""Neighbouring prompts of which a grid shows the one with the shortest caption."""
CHECKPOINTS = "checkpoints"
"""Key of the file's text that has the identities of the checkpoints, separated by blanks."""
PLACES = "images"
"""Key of the file's text that has titles and captions, and where their images are, in JSON."""


def shown_places(prompts: Sequence[Prompt]) -> list[int]:
    """Places of the prompts that a grid shows, rising: of every few the one with the shortest caption.

    Short captions leave much open, and so show how samplings differ where a caption that says all would hide it.

    Args:
        prompts: of an image set, at least one.
    """
    among = max(1, min(AMONG, len(prompts) // GRID_ROWS))
    starts = range(0, min(len(prompts), among * GRID_ROWS), among)
    return [min(range(start, start + among), key=lambda place: len(prompts[place].caption)) for start in starts]


def write_grid(path: Path, columns: Sequence[tuple[ImageSet, str]], prompts: Sequence[Prompt]) -> Image.Image:
    """Write the images of a few prompts, one column for each image set, under their guidance scale and seed.

    Args:
        path: of the PNG file.
        columns: image sets, which are generated, with a figure of each in words or nothing; at least one.
        prompts: of every image set, of which `shown_places` are shown.
    """
    places = shown_places(prompts)
    image_sets = [image_set for image_set, _ in columns]
    scales = dict.fromkeys(f"{image_set.sampling.guidance:g}" for image_set in image_sets)
    title = f"guidance {', '.join(scales)}, seed {image_sets[0].config.generation_seed}"
    images = [(image_set.sampling.heading, image_set.images(places)) for image_set in image_sets]
    cell = max(128, images[0][1].shape[1])
    captions, figures = [prompts[place].caption for place in places], [figure for _, figure in columns]
    grid = labelled_grid(images, captions, cell, title, figures)
    text = PngInfo()
    text.add_text(CHECKPOINTS, " ".join(dict.fromkeys(image_set.checkpoint_sha256 for image_set in image_sets)))
    titles = [image_set.sampling.title for image_set in image_sets]
    cells = {"titles": titles, "captions": captions, "cell": grid.cell, "lefts": grid.lefts, "tops": grid.tops}
    text.add_text(PLACES, json.dumps(cells))
    commit_file(path, lambda place: grid.sheet.save(place, format="PNG", pnginfo=text))
    return grid.sheet


def shown_images(path: Path) -> dict[str, dict[str, Image.Image]]:
    """The images of a grid by title of their sampling and by caption, as large as they are there.

    Returns:
        none for a grid of an earlier version, which does not say where they are.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with Image.open(path, formats=["PNG"]) as grid:
            grid.load()
        if PLACES not in grid.info:
            return {}
        places = parse_json(grid.info[PLACES].encode())
        cell = places["cell"]
        return {
            title: {
                caption: grid.crop((left, top, left + cell, top + cell))
                for caption, top in zip(places["captions"], places["tops"], strict=True)
            }
            for title, left in zip(places["titles"], places["lefts"], strict=True)
        }
    except (OSError, SyntaxError, ValueError, KeyError, TypeError) as error:
        require_reachable(error, str(path))
        raise DataError(f"{path} is damaged: delete it; only its images are lost") from error


def shown_checkpoints(path: Path) -> Collection[str] | None:
    """Identities of the checkpoints whose images a grid shows (`models.checkpoint_identity.checkpoint_sha256`).

    Returns:
        None for a grid of an earlier version, which does not say; none for a file that is missing or damaged.
    """
    try:
        with Image.open(path, formats=["PNG"]) as grid:
            grid.load()
            recorded = grid.info.get(CHECKPOINTS)
    except (OSError, SyntaxError, ValueError):
        return ()
    return None if recorded is None else str(recorded).split()
