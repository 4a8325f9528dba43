"""Generated images side by side, a column for each sampling."""

from collections.abc import Sequence

from PIL import Image

from lcm_distill.evaluation.image_sets import ImageSet
from lcm_distill.evaluation.prompt_files import Prompt
from lcm_distill.report.grid import labelled_grid

GRID_ROWS = 6


def side_by_side(image_sets: Sequence[ImageSet], prompts: Sequence[Prompt]) -> Image.Image:
    """The images of the first prompts, one column for each image set, under their guidance scale and seed.

    Args:
        image_sets: generated, at least one. prompts: the first ones of every image set.
    """
    scales = dict.fromkeys(f"{image_set.sampling.guidance:g}" for image_set in image_sets)
    title = f"guidance {', '.join(scales)}, seed {image_sets[0].config.generation_seed}"
    columns = [(image_set.sampling.title, image_set.images(len(prompts))) for image_set in image_sets]
    cell = max(128, columns[0][1].shape[1])
    return labelled_grid(columns, [prompt.caption for prompt in prompts], cell, title)
