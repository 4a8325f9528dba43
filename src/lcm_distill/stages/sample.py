"""A few images of given captions, in one labelled grid."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from lcm_distill.api import LatentDiffusion, TextToImage, open_config, open_model
from lcm_distill.config import Config
from lcm_distill.core.device import resolve_device
from lcm_distill.core.errors import UserError
from lcm_distill.evaluation.generation import batch_generator, generation_dtype
from lcm_distill.evaluation.prompt_files import Prompt, read_prompts
from lcm_distill.evaluation.prompts import HELD_OUT, held_out_prompts, prompts_file
from lcm_distill.pipeline.atomic import commit_file
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.report.grid import gallery, labelled_grid
from lcm_distill.report.tables import sampling_title

LEAST_CELL = 128
"""Width of an image in a grid, in pixels, if it is not larger itself."""


def choose_prompts(where: str, captions: Sequence[str], source: str | None, count: int) -> list[Prompt]:
    """The given captions; or `count` of those that `source` names, spread evenly over it.

    Args:
        where: run folder, whose held-out captions `held-out` stands for. source: that, `parti`, or a file of captions.

    Raises:
        UserError: there are captions and a source, or neither; or the source is wrong.
    """
    if bool(captions) == bool(source):
        raise UserError("say what to draw: captions, or --prompts with `parti`, `held-out` or a file of captions")
    if not source:
        return [Prompt(index, caption) for index, caption in enumerate(captions)]
    if source == HELD_OUT:
        if where == "shapes":
            raise UserError("--prompts held-out wants captions of a run: give its folder as --run")
        found = held_out_prompts(open_config(where), RunFolder(Path(where)))
    else:
        found = read_prompts(prompts_file(source))
    count = min(count, len(found))
    return [found[index * len(found) // count] for index in range(count)]


def sample(
    where: str, prompts: Sequence[Prompt], steps: Sequence[int], guidance: float | None, seed: int, out: Path
) -> dict[str, Any]:
    """Draw every caption with the student of `where`, once for each number of steps, and write a grid to `out`.

    Args:
        guidance: the run's own first scale if not given.
    """
    config = open_config(where)
    guidance = config.evaluate.guidance[0] if guidance is None else guidance
    model = _opened(where, config, "student")
    columns = [
        (sampling_title("student", "", count), _generate(model, config, prompts, count, guidance, seed))
        for count in steps
    ]
    return _write(where, columns, prompts, guidance, seed, out) | {"steps": list(steps)}


def compare_samplers(
    where: str,
    prompts: Sequence[Prompt],
    steps: int,
    solver: Literal["heun", "euler"],
    guidance: float | None,
    seed: int,
    out: Path,
) -> dict[str, Any]:
    """Draw every caption with the teacher of `where` and with its student, in as many steps from the same noise."""
    config = open_config(where)
    guidance = config.evaluate.guidance[0] if guidance is None else guidance
    teacher = _opened(where, config, "teacher")
    assert isinstance(teacher, LatentDiffusion)
    teacher.solver = solver
    columns = [(sampling_title("teacher", solver, steps), _generate(teacher, config, prompts, steps, guidance, seed))]
    del teacher  # one of them is held at a time
    student = _opened(where, config, "student")
    columns.append((sampling_title("student", "", steps), _generate(student, config, prompts, steps, guidance, seed)))
    return _write(where, columns, prompts, guidance, seed, out) | {"steps": steps, "solver": solver}


def _opened(where: str, config: Config, role: Literal["student", "teacher"]) -> TextToImage:
    """A model of `where`, on the configured device and in the precision that suits it."""
    dtype = getattr(torch, generation_dtype(config))
    return open_model(where, role).to(resolve_device(config.device), dtype)


def _generate(
    model: TextToImage, config: Config, prompts: Sequence[Prompt], steps: int, guidance: float, seed: int
) -> np.ndarray:
    """Images uint8 (n, H, W, 3)."""
    generate = batch_generator(model, steps, guidance, seed, config.evaluate.batch_size)
    return generate([prompt.caption for prompt in prompts], [prompt.image_id for prompt in prompts]).numpy()


def _write(
    where: str,
    columns: Sequence[tuple[str, np.ndarray]],
    prompts: Sequence[Prompt],
    guidance: float,
    seed: int,
    out: Path,
) -> dict[str, Any]:
    """A gallery of one way of drawing, or a column for each of several."""
    captions = [prompt.caption for prompt in prompts]
    title = f"{Path(where).name}, guidance {guidance:g}, seed {seed}"
    cell = max(LEAST_CELL, columns[0][1].shape[1])
    image = _grid(columns, captions, title, cell)
    commit_file(out, lambda path: image.save(path, format="PNG"))
    return {"image": str(out), "prompts": captions, "guidance": guidance, "seed": seed}


def _grid(columns: Sequence[tuple[str, np.ndarray]], captions: Sequence[str], title: str, cell: int) -> Image.Image:
    if len(columns) > 1:
        return labelled_grid(columns, captions, cell, title)
    ((heading, images),) = columns
    return gallery(images, captions, cell, f"{heading}; {title}")
