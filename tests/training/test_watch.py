"""`lcm distill --watch N`: a row of images every N steps, which a resumed training keeps and no weight depends on."""

import numpy as np
import pytest
import torch
from PIL import Image

from lcm_distill.api import open_model
from lcm_distill.core.errors import UserError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.evaluation.prompts import held_out_prompts
from lcm_distill.formats.images import tensor_to_uint8
from lcm_distill.report.grid import BETWEEN, MARGIN, TEXT_WIDTH
from lcm_distill.stages.distill import distill
from lcm_distill.training.student import prepare
from lcm_distill.training.watch import CAPTIONS, CELL
from tests.command_line import lcm
from tests.trainings import start

__all__ = ["start"]  # a fixture


def strip_of(run) -> np.ndarray:
    with Image.open(run.distill / "watch.png") as strip:
        return np.asarray(strip)


def rows_of(run) -> dict[str, np.ndarray]:
    return {path.stem: np.asarray(Image.open(path)) for path in sorted(run.distill.glob("watch/rows-*/*.png"))}


def test_rows_are_of_the_weights_of_their_steps_and_change_no_weight(start, finished_run):
    config, run = start("distill.steps=6")
    list(distill(config, run, watch=3))
    assert run.student.read_bytes() == finished_run.student.read_bytes()
    rows = rows_of(run)
    assert list(rows) == ["step-0000000", "step-0000003", "step-0000006"]
    assert not np.array_equal(rows["step-0000000"], rows["step-0000006"])
    prompts = held_out_prompts(Cache.local(config, run), CAPTIONS)
    captions, ids = [prompt.caption for prompt in prompts], [prompt.image_id for prompt in prompts]
    guidance, seed = config.evaluate.guidance[0], config.generation_seed
    images = open_model(run.root).generate(captions, 2, guidance, seed, image_ids=ids)
    last = tensor_to_uint8(images).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)  # 64 pixels, shown at 128
    apart = torch.cat(list(last), dim=1).numpy().astype(int) - rows["step-0000006"]
    assert abs(apart).max() <= 1  # another batch may round another way
    strip = strip_of(run)
    assert strip.shape[1] == MARGIN + TEXT_WIDTH + CAPTIONS * (CELL + BETWEEN) - BETWEEN + MARGIN
    first = strip[-CELL - MARGIN : -MARGIN, MARGIN + TEXT_WIDTH :][:, :CELL]
    assert np.array_equal(first, rows["step-0000006"][:, :CELL])
    (place,) = (run.distill / "watch").iterdir()  # nothing of the generation is left
    assert place.name.startswith("rows-")


def test_a_resumed_training_keeps_its_rows_and_makes_none_twice(start):
    config, run = start("distill.steps=6")
    for report in prepare(config, run, watch=2).run():
        if report.label == "distill" and report.done == 5:
            break
    assert list(rows_of(run)) == ["step-0000000", "step-0000002", "step-0000004"]
    before = {path: path.stat().st_mtime_ns for path in run.distill.glob("watch/rows-*/*.png")}
    height = len(strip_of(run))
    list(distill(config, run, watch=2))
    assert list(rows_of(run)) == ["step-0000000", "step-0000002", "step-0000004", "step-0000006"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(strip_of(run)) == height + CELL + MARGIN
    strip = (run.distill / "watch.png").stat().st_mtime_ns
    list(distill(config, run))
    assert (run.distill / "watch.png").stat().st_mtime_ns == strip


def test_a_damaged_row_is_left_out(start):
    config, run = start("distill.steps=2")
    list(distill(config, run, watch=2))
    height = len(strip_of(run))
    (first, last) = sorted(run.distill.glob("watch/rows-*/*.png"))
    first.write_bytes(first.read_bytes()[:100])
    last.unlink()
    list(distill(config, run, watch=2))
    assert len(strip_of(run)) == height - CELL - MARGIN


def test_more_rows_than_a_strip_has_are_refused(start):
    with pytest.raises(UserError, match=r"--watch 1 makes 1001 rows in 1000 steps: give 11 or more"):
        prepare(*start("distill.steps=1000"), watch=1)
    prepare(*start("distill.steps=1000"), watch=11)


def test_the_option_is_for_one_command(start):
    _, run = start("distill.steps=2")
    before = run.config.read_bytes()
    assert lcm("distill", "--run", run.root, "--watch", "1").exit_code == 0
    assert len(rows_of(run)) == 3 and run.config.read_bytes() == before
