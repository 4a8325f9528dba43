"""How a student's images change while it trains: one image file with a row every so many steps."""

import shutil
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from lcm_distill.config import Config
from lcm_distill.core.errors import UserError
from lcm_distill.core.hashing import digest
from lcm_distill.evaluation.image_sets import ImageSet, generate_images
from lcm_distill.pipeline.atomic_writes import commit_file
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.report.grid import fit, labelled_grid
from lcm_distill.training.engine.agreement import decide_on_main
from lcm_distill.training.engine.world import World
from lcm_distill.training.events import Events
from lcm_distill.training.validation import StudentValidation

CAPTIONS = 8
MOST_ROWS = 100
CELL = 128
"""Width of an image in the strip, in pixels."""


class Watch(StudentValidation):
    """A validation that measures nothing: the student at its largest number of steps, always from the same noise.

    `distill/watch.png` has a column a caption and a row a validation, the first before any step. Rows lie in
    `distill/watch/`, so that a resumed training keeps them; those of other captions or another sampling are left out.

    Args:
        every: number of steps between two rows.

    Raises:
        UserError: there would be more than `MOST_ROWS`.
    """

    def __init__(
        self, config: Config, run: RunFolder, world: World, publish: Callable[[Path], None], every: int
    ) -> None:
        steps, rows = config.distill.steps, 1 + config.distill.steps // every
        if rows > MOST_ROWS:
            least = -(-steps // (MOST_ROWS - 1))
            raise UserError(f"--watch {every} makes {rows} rows in {steps} steps: give {least} or more")
        few = [f"engine.validate_every={every}", f"engine.validation_images={CAPTIONS}", "evaluate.protocols=[]"]
        one = ["evaluate.teacher=[]", f"evaluate.student_steps=[{max(config.evaluate.student_steps)}]"]
        watched = config.changed([*few, *one], "--watch")
        super().__init__(watched, run, world, publish)
        self.strip, self.folder = run.distill / "watch.png", run.distill / "watch"

    def due(self, step: int, place: RunFolder) -> bool:
        """See `Validation`."""
        return step % self.every == 0 and not decide_on_main(lambda: self._row(step).is_file())

    def _validate(self, place: RunFolder, step: int, events: Events) -> Iterator[Progress]:
        (image_set,) = self.image_sets(place)
        yield from generate_images("watch", [image_set])
        self._add(step, image_set)
        shutil.rmtree(place.root)

    def _add(self, step: int, image_set: ImageSet) -> None:
        """Commit a row, then the strip of all rows."""
        row = np.concatenate([np.asarray(fit(image, CELL)) for image in image_set.images(range(CAPTIONS))], axis=1)
        self._rows.mkdir(parents=True, exist_ok=True)
        commit_file(self._row(step), lambda path: Image.fromarray(row).save(path, format="PNG"))
        rows = {path: images for path in sorted(self._rows.glob("step-*.png")) if (images := _images(path)) is not None}
        images = np.stack(list(rows.values()), axis=1)  # (captions, rows, H, W, 3)
        columns = [(prompt.caption, column) for prompt, column in zip(self.prompts, images, strict=True)]
        sampling = image_set.sampling
        title = f"{sampling.title}, guidance {sampling.guidance:g}, seed {image_set.config.generation_seed}"
        steps = [f"step {int(path.stem.removeprefix('step-')):,}" for path in rows]
        strip = labelled_grid(columns, steps, CELL, title).sheet
        commit_file(self.strip, lambda path: strip.save(path, format="PNG"))

    def _row(self, step: int) -> Path:
        return self._rows / f"step-{step:07d}.png"

    @cached_property
    def _rows(self) -> Path:
        """The folder of the rows with these captions and this sampling."""
        settings = self.config.evaluate
        captions = [prompt.caption for prompt in self.prompts]
        sampling = [settings.student_steps, settings.guidance[0], self.config.generation_seed, settings.same_noise]
        return self.folder / f"rows-{digest([captions, sampling])[:8]}"


def _images(path: Path) -> np.ndarray | None:
    """The images (captions, H, W, 3) of a row; None of a damaged one."""
    try:
        with Image.open(path, formats=["PNG"]) as row:
            return np.asarray(row.convert("RGB")).reshape(CELL, CAPTIONS, CELL, 3).swapaxes(0, 1)
    except (OSError, SyntaxError, ValueError):
        return None
