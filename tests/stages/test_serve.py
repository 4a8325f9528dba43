"""`lcm serve`: the models' own images from one noise, one line for what is refused, and the page in Gradio."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from lcm_distill import assets
from lcm_distill.api import open_model
from lcm_distill.commands import serve_page
from lcm_distill.config import load_preset
from lcm_distill.core.errors import UserError
from lcm_distill.diffusion.samplers import Heun
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.serve import MOST_CHARACTERS, MOST_PROMPTS, MOST_TEXT, SCALES, Made, Studio
from tests.command_line import lcm

CAPTIONS = ["a large red heart in the centre on a cream background", "a small blue star at the top left"]
TEXT = f"\n  {CAPTIONS[0]}\n\n{CAPTIONS[1]}\n"


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio("shapes")


def grey_levels(made: Made, images: torch.Tensor) -> float:
    """Largest difference of images and those of a model, (n, 3, H, W) in [0, 1]."""
    own = (images * 255).permute(0, 2, 3, 1).numpy()
    return float(np.abs(np.stack([image for image, _ in made.images]) - own).max())


def test_student_and_teacher_start_from_the_same_noise(studio):
    student, teacher = studio.beside(TEXT, 2, 2.5, 7)
    assert grey_levels(student, open_model("shapes").generate(CAPTIONS, 2, 2.5, 7)) <= 0.51
    diffusion = load_preset("shapes").diffusion
    heun = Heun(18, diffusion.sigma_min, diffusion.sigma_max, diffusion.rho)
    expected = open_model("shapes", "teacher").generate(CAPTIONS, guidance_scale=2.5, seed=7, sampler=heun)
    assert grey_levels(teacher, expected) <= 0.51
    assert student.title.startswith("student, 2 steps, guidance 2.5, seed 7: ")
    assert teacher.title.startswith("teacher, 18 Heun steps, guidance 2.5, seed 7: ")
    assert [words for _, words in student.images] == CAPTIONS


def test_a_strip_has_the_first_caption_at_all_scales(studio):
    made = studio.strip(TEXT, 1, 3)
    assert [words for _, words in made.images] == [f"guidance {scale}" for scale in ("1", "1.5", "2", "2.5", "3")]
    assert made.title.startswith(f"student, 1 step, seed 3, {CAPTIONS[0]}: ")
    model = open_model("shapes")
    images = torch.cat([model.generate(CAPTIONS[0], 1, scale, 3) for scale in np.linspace(1, 3, SCALES)])
    assert grey_levels(made, images) <= 0.51


@pytest.mark.parametrize(
    ("text", "steps", "guidance", "seed", "problem"),
    [
        (" \n\n", 1, 2.0, 0, "there is no caption"),
        (None, 1, 2.0, 0, "there is no caption"),
        ("a\n" * (MOST_PROMPTS + 1), 1, 2.0, 0, "there are 5 captions, one a line: 4 are the most"),
        ("a" * (MOST_CHARACTERS + 1), 1, 2.0, 0, "longer than 300 characters"),
        ("\n" * (MOST_TEXT + 1), 1, 2.0, 0, "1,205 characters: 1,204 are the most"),
        ("a", 9, 2.0, 0, "steps is 9: it must be from 1 to 8"),
        ("a", 1.5, 2.0, 0, "steps is 1.5"),
        ("a", 1, -1.0, 0, "guidance scale is -1"),
        ("a", 1, 2.0, -1, "seed"),
        ("a", 1, 2.0, 1.5, "seed is 1.5: it must be a whole number"),
        ("a", 1, 2.0, None, "is empty"),
    ],
)
def test_what_is_refused(studio, text, steps, guidance, seed, problem):
    with pytest.raises(UserError, match=problem):
        studio.beside(text, steps, guidance, seed)


def test_a_students_file_has_no_teacher(tmp_path):
    run, file = RunFolder(tmp_path / "run"), tmp_path / "own.safetensors"
    run.open(load_preset("shapes"))
    shutil.copy(assets.STUDENT, run.student)
    assert lcm("export", "--run", run.root, "--out", file).exit_code == 0
    studio = Studio(str(file))
    assert [made.title.split(",")[0] for made in studio.beside("a green ring", 1, 2.0, 0)] == ["student"]
    assert (studio.steps, studio.scales, studio.guidance) == ((1, 8, 4), (1.0, 3.0), 2.0)
    with pytest.raises(UserError, match="give a run folder, and the file as --student"):
        Studio(str(file), teacher=assets.TEACHER)


def test_without_gradio_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(serve_page, "find_spec", lambda _: None)
    refused = lcm("serve")
    assert refused.exit_code == 2 and "pip install 'lcm-distill[ui]'" in refused.output


@pytest.mark.slow
def test_the_page_makes_images_one_job_at_a_time():
    pytest.importorskip("gradio", reason="the page needs the extra [ui]")
    done = subprocess.run([sys.executable, "-m", "tests.stages.use_page"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "3 jobs, at most 1 at a time\n"), done.stderr
