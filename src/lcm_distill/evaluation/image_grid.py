"""Generated images side by side, a column for each sampling, in a file that records whose images they are."""

from collections.abc import Collection, Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lcm_distill.evaluation.image_sets import ImageSet
from lcm_distill.evaluation.prompt_files import Prompt
from lcm_distill.pipeline.atomic_writes import commit_file
from lcm_distill.report.grid import labelled_grid

GRID_ROWS = 6
CHECKPOINTS = "checkpoints"
"""Key of the file's text that has the identities of the checkpoints, separated by blanks."""


def write_grid(path: Path, columns: Sequence[tuple[ImageSet, str]], prompts: Sequence[Prompt]) -> Image.Image:
    """Write the images of the first prompts, one column for each image set, under their guidance scale and seed.

    Args:
        path: of the PNG file.
        columns: image sets, which are generated, with a figure of each in words or nothing; at least one.
        prompts: the first ones of every image set.
    """
    image_sets = [image_set for image_set, _ in columns]
    scales = dict.fromkeys(f"{image_set.sampling.guidance:g}" for image_set in image_sets)
    title = f"guidance {', '.join(scales)}, seed {image_sets[0].config.generation_seed}"
    images = [(image_set.sampling.heading, image_set.images(len(prompts))) for image_set in image_sets]
    cell = max(128, images[0][1].shape[1])
    captions, figures = [prompt.caption for prompt in prompts], [figure for _, figure in columns]
    grid = labelled_grid(images, captions, cell, title, figures)
    text = PngInfo()
    text.add_text(CHECKPOINTS, " ".join(dict.fromkeys(image_set.checkpoint_sha256 for image_set in image_sets)))
    commit_file(path, lambda place: grid.save(place, format="PNG", pnginfo=text))
    return grid


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
