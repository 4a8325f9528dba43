"""`lcm sample` and `lcm compare-samplers`: a few images of given captions, on one labelled sheet, or in a folder."""

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from lcm_distill.api import (
    LatentConsistencyModel,
    Role,
    TextToImage,
    check_settings,
    is_file,
    is_shipped,
    open_config,
    open_model,
)
from lcm_distill.core.device import resolve_device
from lcm_distill.core.errors import UserError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.diffusion.samplers import TEACHER_SAMPLERS, Sampler
from lcm_distill.evaluation.generation import GenerationDtype, batch_generator, generation_dtype
from lcm_distill.evaluation.prompt_files import Prompt, read_prompts
from lcm_distill.evaluation.prompts import HELD_OUT, held_out_prompts, prompts_file
from lcm_distill.formats.text import trimmed
from lcm_distill.models.student_description import DEFAULT_GUIDANCE, StudentSampler, read_student, refuse_teacher
from lcm_distill.pipeline.atomic_writes import commit_file, remove_orphans_of
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.report.grid import gallery, labelled_grid
from lcm_distill.report.image_places import FileFormat, is_folder, require_place, sheet_at
from lcm_distill.report.tables import sampling_title

MINIMUM_CELL = 128
"""Width of an image in a grid, in pixels; larger images keep their own."""
QUALITY = 95
"""Of those that are compressed with losses, 1 to 100."""
OPTIONS = ("--steps", "--guidance", "--seed")
"""Of the settings that `check_settings` takes."""
Made = Generator[Progress, None, dict[str, Any]]
"""Progress, and what was made."""
STEPS = (1, 2, 4)
"""Numbers of steps of a student where none are given."""
BATCH_SIZE = 16
"""Images per batch of a student that is opened without a configuration."""
Column = tuple[str, np.ndarray]
"""Title of a sampling, and its images, uint8 (n, H, W, 3)."""


def choose_prompts(where: str, captions: Sequence[str], source: str | None, count: int) -> list[Prompt]:
    """The given captions, or `count` of those in `source`, spread evenly over it.

    Args:
        where: run folder that `held-out` refers to. source: `held-out`, `parti`, or a file of captions.

    Raises:
        UserError: there are captions and a source, or neither; a caption is empty; or the source is wrong.
    """
    if captions and source:
        raise UserError(f"captions and --prompts {source} exclude each other: leave one of them out")
    if not captions and not source:
        raise UserError(
            "nothing to generate: give captions, or --prompts with `parti`, `held-out` or a file of captions"
        )
    if not source:
        empty = [place for place, caption in enumerate(captions, 1) if not trimmed(caption)]
        if empty:
            raise UserError(f"caption {empty[0]} is empty: give words, or leave it out")
        return [Prompt(index, caption) for index, caption in enumerate(captions)]
    if source == HELD_OUT:
        if is_shipped(where) or is_file(where):
            raise UserError("--prompts held-out needs a run's data set: give the run's folder as --run")
        config = open_config(where)
        found = held_out_prompts(Cache.local(config, RunFolder(Path(where))), config.evaluate.images)
    else:
        found = read_prompts(prompts_file(source))
    count = min(count, len(found))
    return [found[index * len(found) // count] for index in range(count)]


@dataclass(frozen=True)
class Settings:
    """How images are generated.

    Attributes:
        guidance: guidance scale where none is given.
        device: as configured, such as `auto`.
    """

    guidance: float
    device: str
    dtype: GenerationDtype
    batch_size: int


def find_settings(where: str) -> Settings:
    """The settings of a run folder or of the model that ships; those of a student's file come from its guidance range.

    Raises:
        UserError: there is no such run or file.
    """
    if is_file(where):
        student = read_student(Path(where))
        guidance = student.default_guidance if student else DEFAULT_GUIDANCE
        return Settings(guidance, "auto", generation_dtype("auto", "auto"), BATCH_SIZE)
    config = open_config(where)
    settings, dtype = config.evaluate, generation_dtype(config.evaluate.dtype, config.device)
    return Settings(settings.guidance[0], config.device, dtype, settings.batch_size)


def sample(
    where: str,
    prompts: Sequence[Prompt],
    steps: Sequence[int] | None,
    guidance: float | None,
    seed: int,
    out: Path,
    student: Path | None = None,
    sampler: StudentSampler = "own",
    file_format: FileFormat | None = None,
    teacher: Path | None = None,
) -> Made:
    """Generate every caption with a model, once for each number of steps, and write a sheet, or single images too.

    Args:
        where: run folder, student's file, or `shapes`. steps: `STEPS` of a student if None, a teacher's default.
        guidance: the run's first configured scale if None; for a student's file the middle of its trained range.
        out: a PNG file; or a folder, which is what a name without a suffix is: it gets every image by itself as well.
        file_format: of single images, PNG if None.
        student: a checkpoint from elsewhere, of the sizes that `where` has. sampler: of the student.
        teacher: a checkpoint from elsewhere, of these sizes, that generates instead of a student.

    Returns:
        The sheet's path, single images' paths, captions, guidance, seed and steps.

    Raises:
        UserError: a setting is out of range, the student cannot be opened, or a format is given without a folder.
    """
    require_place(out, file_format)
    settings = find_settings(where)
    guidance = settings.guidance if guidance is None else guidance
    role: Role = "teacher" if teacher else "student"
    counts = steps or ((None,) if teacher else STEPS)
    for count in counts:
        check_settings(count, guidance, seed, OPTIONS)
    model = open_for(where, settings, role, teacher or student)
    samplers = [_sampler(model, count, sampler) for count in counts]
    columns = yield from _columns(role, model, samplers, settings, prompts, guidance, seed)
    taken = {"steps": [chosen.steps for chosen in samplers]}
    return _write(where, columns, prompts, guidance, seed, out, file_format) | taken


def compare_samplers(
    where: str,
    prompts: Sequence[Prompt],
    steps: int,
    solver: Literal["heun", "euler"],
    guidance: float | None,
    seed: int,
    out: Path,
    student: Path | None = None,
    teacher: Path | None = None,
    sampler: StudentSampler = "own",
    file_format: FileFormat | None = None,
) -> Made:
    """Generate every caption with teacher and student, in equally many steps from the same noise.

    Args and errors are those of `sample`; `where` is no student's file.
    """
    require_place(out, file_format)
    settings = find_settings(where)
    guidance = settings.guidance if guidance is None else guidance
    check_settings(steps, guidance, seed, OPTIONS)
    if student:
        refuse_teacher(student)  # before the teacher generates
    model = open_for(where, settings, "teacher", teacher)
    diffusion = model.diffusion
    solved = TEACHER_SAMPLERS[solver](steps, diffusion.sigma_min, diffusion.sigma_max, diffusion.rho)
    title = sampling_title("teacher", solver, steps)
    columns = [(yield from _generate(title, model, solved, settings, prompts, guidance, seed))]
    del model  # one model in memory at a time
    model = open_for(where, settings, "student", student)
    chosen = _sampler(model, steps, sampler)
    title = sampling_title("student", chosen.name, steps)
    columns.append((yield from _generate(title, model, chosen, settings, prompts, guidance, seed)))
    return _write(where, columns, prompts, guidance, seed, out, file_format) | {"steps": steps, "solver": solver}


def open_for(where: str, settings: Settings, role: Role, checkpoint: Path | None = None) -> TextToImage:
    """A model on the device and in the dtype of its settings; the other arguments are those of `api.open_model`."""
    return open_model(where, role, checkpoint).to(resolve_device(settings.device), getattr(torch, settings.dtype))


def _sampler(model: TextToImage, steps: int | None, kind: StudentSampler) -> Sampler:
    return model.sampling.sampler(steps, kind) if isinstance(model, LatentConsistencyModel) else model.sampler(steps)


def _columns(
    role: Role,
    model: TextToImage,
    samplers: Sequence[Sampler],
    settings: Settings,
    prompts: Sequence[Prompt],
    guidance: float,
    seed: int,
) -> Generator[Progress, None, list[Column]]:
    """The images of several samplings of one model."""
    columns: list[Column] = []
    for sampler in samplers:
        title = sampling_title(role, sampler.name, sampler.steps)
        columns.append((yield from _generate(title, model, sampler, settings, prompts, guidance, seed)))
    return columns


def _generate(
    title: str,
    model: TextToImage,
    sampler: Sampler,
    settings: Settings,
    prompts: Sequence[Prompt],
    guidance: float,
    seed: int,
) -> Generator[Progress, None, Column]:
    """The images of one sampling, a batch after the other."""
    generate = batch_generator(model, sampler, guidance, seed, settings.batch_size)
    batches: list[np.ndarray] = []
    yield Progress(title, 0, len(prompts), "images")
    for start in range(0, len(prompts), settings.batch_size):
        batch = prompts[start : start + settings.batch_size]
        images = generate([prompt.caption for prompt in batch], [prompt.image_id for prompt in batch])
        batches.append(images.numpy())
        yield Progress(title, start + len(batch), len(prompts), "images")
    return title, np.concatenate(batches)


def _write(
    where: str,
    columns: Sequence[Column],
    prompts: Sequence[Prompt],
    guidance: float,
    seed: int,
    out: Path,
    file_format: FileFormat | None,
) -> dict[str, Any]:
    """Write a sheet, with a column for each of several samplings, and single images where `out` is a folder."""
    captions = [prompt.caption for prompt in prompts]
    title = f"{Path(where).name}, guidance {guidance:g}, seed {seed}"
    cell = max(MINIMUM_CELL, columns[0][1].shape[1])
    single = _write_single(columns, out, file_format or "png") if is_folder(out) else []
    sheet = sheet_at(out)
    _save(_grid(columns, captions, title, cell), sheet, "png")
    return {"image": str(sheet), "images": single, "prompts": captions, "guidance": guidance, "seed": seed}


def _write_single(columns: Sequence[Column], folder: Path, file_format: FileFormat) -> list[str]:
    """Write each image to a file of its own, by the number of its caption and its sampling; returns their paths."""
    paths: list[str] = []
    for heading, images in columns:
        name = re.sub(r"\W+", "-", heading)
        for number, image in enumerate(images):
            paths.append(str(folder / f"{number:04d}-{name}.{file_format}"))
            _save(Image.fromarray(image), Path(paths[-1]), file_format)
    return paths


def _save(image: Image.Image, path: Path, file_format: FileFormat) -> None:
    remove_orphans_of(path)
    commit_file(path, lambda temporary: image.save(temporary, format=file_format.upper(), quality=QUALITY))


def _grid(columns: Sequence[Column], captions: Sequence[str], title: str, cell: int) -> Image.Image:
    if len(columns) > 1:
        return labelled_grid(columns, captions, cell, title).sheet
    ((heading, images),) = columns
    return gallery(images, captions, cell, f"{heading}; {title}")
