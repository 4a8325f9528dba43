"""`lcm serve`: the images of its page, which `commands.serve_page` shows."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from textwrap import shorten

import numpy as np

from lcm_distill.api import LatentConsistencyModel, TextToImage, check_settings, is_file, open_config
from lcm_distill.core.errors import UserError
from lcm_distill.diffusion.samplers import Sampler
from lcm_distill.evaluation.generation import batch_generator
from lcm_distill.evaluation.known_captions import unknown_caption
from lcm_distill.evaluation.samplings import teacher_samplings
from lcm_distill.models.student_description import read_student
from lcm_distill.publishing.usage import caption_for
from lcm_distill.report.tables import sampling_title
from lcm_distill.stages.sample import find_settings, open_for

MOST_PROMPTS = 4
"""Of one request."""
MOST_CHARACTERS = 300
"""Of a prompt; text encoders read far fewer."""
MOST_TEXT = MOST_PROMPTS * (MOST_CHARACTERS + 1)
"""Characters of the prompts of a request, one a line."""
MOST_STEPS = 8
"""Of a student that takes any number of them."""
MOST_OF_TITLE = 60
"""Characters of a caption in a title."""
SCALES = 5
"""Guidance scales of a strip."""


@dataclass(frozen=True)
class Made:
    """Images of one sampling.

    Attributes:
        title: model, sampler, steps, what else all images share, and seconds.
        images: of each caption, uint8 (H, W, 3), under what stands below it.
    """

    title: str
    images: Sequence[tuple[np.ndarray, str]]


class Studio:
    """A student and its teacher, open and ready.

    Attributes:
        name: of the run or file. caption: one that the student makes an image of.
        guidance: scale where none is chosen. scales: lowest and highest that are sensible.
        teacher: None for a student's file, which holds none.
    """

    def __init__(self, where: str, student: Path | None = None, teacher: Path | None = None) -> None:
        """Open the models.

        Args:
            where: run folder, student's file, or `shapes`. student, teacher: checkpoints from elsewhere, of its sizes.

        Raises:
            UserError: one cannot be opened, or there is a file and a teacher.
        """
        if is_file(where) and teacher:
            raise UserError(f"--teacher: {where} is a student's file: give a run folder, and the file as --student")
        self._where, self._elsewhere = where, student or teacher
        self.name, self._settings = Path(where).name, find_settings(where)
        self.student = open_for(where, self._settings, "student", student)
        assert isinstance(self.student, LatentConsistencyModel)
        self.sampling, self.guidance = self.student.sampling, self._settings.guidance
        self.scales = self.sampling.guidance_range or (1.0, 2 * self.guidance)
        self.caption = caption_for(_text_encoder(where))
        self.teacher: TextToImage | None = None
        if not is_file(where):
            self.teacher = open_for(where, self._settings, "teacher", teacher)
            config = open_config(where)
            first = teacher_samplings(config.evaluate, config.diffusion)[0] if config.evaluate.teacher else None
            self._solver = first.sampler if first else self.teacher.sampler()

    @cached_property
    def steps(self) -> tuple[int, int, int]:
        """Lowest, highest and default number of steps of the student."""
        own = self.sampling.default_steps
        return (own, own, own) if self.sampling.phases else (1, MOST_STEPS, own)

    def unknown(self, text: str | None) -> str | None:
        """What the student does not know of the captions in a text, one a line; None where nothing is known of that."""
        return unknown_caption(self._where, _captions(text or ""), self._elsewhere)

    def beside(self, text: str | None, steps: int | None, guidance: float | None, seed: int | None) -> list[Made]:
        """Images of the captions in a text, one a line, by the student and by the teacher from the same noise.

        Raises:
            UserError: there is no caption, too much text, or a setting is out of range.
        """
        captions, sampler, scale, seed = self._checked(text, steps, guidance, seed)
        chosen = f"guidance {scale:g}, seed {seed}"
        made = [self._made("student", self.student, sampler, captions, [scale], seed, chosen)]
        if self.teacher is not None:
            made.append(self._made("teacher", self.teacher, self._solver, captions, [scale], seed, chosen))
        return made

    def strip(self, text: str | None, steps: int | None, seed: int | None) -> Made:
        """Images of the first caption by the student at guidance scales from lowest to highest, from the same noise.

        Raises:
            UserError: as `beside`.
        """
        scales = [float(scale) for scale in np.linspace(*self.scales, SCALES)]
        captions, sampler, _, seed = self._checked(text, steps, scales[0], seed)
        chosen = f"seed {seed}, {shorten(captions[0], MOST_OF_TITLE, placeholder=' ...')}"
        return self._made("student", self.student, sampler, captions[:1], scales, seed, chosen)

    def _made(
        self,
        role: str,
        model: TextToImage,
        sampler: Sampler,
        captions: list[str],
        scales: Sequence[float],
        seed: int,
        chosen: str,
    ) -> Made:
        """Images of captions at each of several scales; one of the two is what stands below an image.

        Args:
            chosen: what all images share, for the title.
        """
        begun = time.perf_counter()
        images = [
            image
            for scale in scales
            for image in batch_generator(model, sampler, scale, seed, self._settings.batch_size)(
                captions, range(len(captions))
            )
        ]
        seconds = time.perf_counter() - begun
        below = captions if len(scales) == 1 else [f"guidance {scale:g}" for scale in scales]
        title = f"{sampling_title(role, sampler.name, sampler.steps)}, {chosen}: {seconds:.2f} s"
        return Made(title, [(image.numpy(), words) for image, words in zip(images, below, strict=True)])

    def _checked(
        self, text: str | None, steps: int | None, guidance: float | None, seed: int | None
    ) -> tuple[list[str], Sampler, float, int]:
        """Captions, the student's sampler, guidance scale and seed; a page sends None for what is empty."""
        text = text or ""
        if len(text) > MOST_TEXT:
            raise UserError(f"there are {len(text):,} characters: {MOST_TEXT:,} are the most")
        captions = _captions(text)
        if not captions:
            raise UserError("there is no caption: write one")
        if len(captions) > MOST_PROMPTS:
            raise UserError(f"there are {len(captions)} captions, one a line: {MOST_PROMPTS} are the most")
        if max(map(len, captions)) > MOST_CHARACTERS:
            raise UserError(f"a caption is longer than {MOST_CHARACTERS} characters: shorten it")
        if steps is None or guidance is None or seed is None:
            raise UserError("steps, guidance scale or seed is empty: give a number")
        check_settings(steps, guidance, seed, ("steps", "guidance scale", "seed"))
        low, high, _ = self.steps
        if not low <= steps <= high:
            raise UserError(f"steps is {steps:g}: it must be from {low} to {high}")
        return captions, self.student.sampler(int(steps)), float(guidance), int(seed)


def _captions(text: str) -> list[str]:
    """Those of a text, one a line."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def _text_encoder(where: str) -> str:
    """`encoders.text` of a run or a student's file."""
    if not is_file(where):
        return open_config(where).encoders.text
    student = read_student(Path(where))
    return student.encoders.text if student and student.encoders else ""
