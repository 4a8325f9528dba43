"""`lcm sample` and `lcm compare-samplers`: which images are generated, and the one line for wrong input."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lcm_distill.api import open_model
from lcm_distill.diffusion.few_step_samplers import Consistency
from lcm_distill.diffusion.samplers import Heun
from lcm_distill.report import grid
from lcm_distill.stages import sample as stage
from tests.command_line import lcm

CAPTION = "a large red circle in the centre on a navy background"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with PartiPrompts of 30 rows."""
    monkeypatch.chdir(tmp_path)
    rows = [f'a "{number}" ring\tWorld\tBasic\t' for number in range(30)]
    (tmp_path / "PartiPrompts.tsv").write_text("\n".join(["Prompt\tCategory\tChallenge\tNote", *rows]) + "\n")
    return tmp_path


@pytest.fixture
def generated(monkeypatch):
    """Every call of `generate`: model, captions, sampler, guidance, seed and image ids; and what it returned."""
    from lcm_distill.api import TextToImage

    calls, real = [], TextToImage.generate

    def generate(model, captions, steps, guidance, seed, image_ids=None, sampler=None):
        images = real(model, captions, steps, guidance, seed, image_ids, sampler)
        calls.append(SimpleNamespace(
            model=type(model).__name__, captions=captions, sampler=sampler, guidance=guidance, seed=seed,
            ids=image_ids, images=images,
        ))  # fmt: skip
        return images

    monkeypatch.setattr(TextToImage, "generate", generate)
    return calls


def test_some_of_parti_in_a_gallery(here, generated):
    result = lcm("sample", "--prompts", "parti", "--count", 6, "--steps", 1, "--seed", 5, "--out", "grid.png", "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["prompts"] == [f'a "{number}" ring' for number in (0, 5, 10, 15, 20, 25)]
    (call,) = generated
    assert (call.captions, call.guidance, call.seed) == (printed["prompts"], 2.0, 5)
    assert call.sampler == Consistency((80.0,)) and call.ids == [0, 5, 10, 15, 20, 25]
    with Image.open("grid.png") as sheet:
        assert sheet.size[0] == 8 + 4 * (128 + 8)


@pytest.mark.parametrize(
    ("steps", "texts"),
    [
        ("1", ["student, 1 step; shapes, guidance 1.5, seed 5"]),
        ("1,4", ["shapes, guidance 1.5, seed 5", "student, 1 step", "student, 4 steps"]),
    ],
)
def test_a_sheet_names_seed_steps_and_scale(here, monkeypatch, steps, texts):
    written = list[str]()
    monkeypatch.setattr(grid, "_write", lambda sheet, place, lines: written.append(" ".join(lines)))
    result = lcm("sample", CAPTION, "--steps", steps, "--guidance", 1.5, "--seed", 5, "--out", "grid.png")
    assert result.exit_code == 0 and set(texts) <= set(written), (result.output, written)


@pytest.mark.parametrize("chosen", [None, "png", "webp"])
def test_a_folder_gets_single_images_and_a_sheet(here, generated, chosen):
    words = ["sample", CAPTION, "a green ring", "--steps", "1,2", "--out", "images", "--json"]
    result = lcm(*words, *(["--format", chosen] if chosen else []))
    assert result.exit_code == 0, result.output
    ending = chosen or "png"
    names = [f"{number:04d}-student-{steps}.{ending}" for steps in ("1-step", "2-steps") for number in (0, 1)]
    assert json.loads(result.stdout)["images"] == [f"images/{name}" for name in names]
    assert sorted(path.name for path in (here / "images").iterdir()) == sorted([*names, "sheet.png"])
    assert "student, 1 step: 2/2 images" in result.stderr and "student, 2 steps: 2/2 images" in result.stderr
    wanted = [image for call in generated for image in (call.images * 255).round().byte().movedim(1, -1).numpy()]
    for name, pixels in zip(names, wanted, strict=True):
        with Image.open(here / "images" / name) as image:
            assert image.format == ending.upper() and image.size == (64, 64)
            assert chosen == "webp" or np.array_equal(np.asarray(image), pixels)


def test_a_format_without_a_folder_is_refused(here):
    result = lcm("sample", CAPTION, "--out", "grid.png", "--format", "jpeg")
    assert result.exit_code == 2 and "--out grid.png is a file: give a folder" in result.stderr
    assert not (here / "grid.png").exists()


def test_held_out_captions_of_a_run(here, finished_run, generated):
    assert lcm("sample", "--prompts", "held-out", "--count", 2, "--run", finished_run.root).exit_code == 0
    assert [call.sampler.steps for call in generated] == [1, 2, 4] and len(generated[0].captions) == 2


def test_teacher_and_student_from_the_same_noise(here, generated):
    result = lcm("compare-samplers", CAPTION, "--steps", 2, "--seed", 3, "--guidance", 1.5)
    assert result.exit_code == 0, result.output
    teacher, student = generated
    assert (teacher.model, teacher.sampler) == ("LatentDiffusion", Heun(2))
    assert (student.model, student.sampler) == ("LatentConsistencyModel", Consistency((80.0, 3.0)))
    for call in generated:
        assert (call.captions, call.guidance, call.seed, call.ids) == ([CAPTION], 1.5, 3, [0])
    model = open_model("shapes", "teacher")
    assert np.allclose(model.generate([CAPTION], 2, 1.5, 3), teacher.images, atol=1e-5)
    with Image.open("compare-samplers.png") as grid:
        pixels = np.asarray(grid)
    for column, images in enumerate((teacher.images, student.images)):
        left = 8 + 190 + column * 148
        wanted = (images[0] * 255).round().byte().permute(1, 2, 0).numpy().repeat(2, 0).repeat(2, 1)
        assert np.array_equal(pixels[-136:-8, left : left + 128], wanted)


def test_captions_go_in_batches_of_the_run(here, finished_run, generated):
    """Four to a batch, as the run's configuration has it; images are those of one batch."""
    options = ["--prompts", "held-out", "--count", 6, "--run", finished_run.root, "--steps", 2]
    for command in ("sample", "compare-samplers"):
        assert lcm(command, *options, "--out", f"{command}.png").exit_code == 0
    assert [call.ids for call in generated] == 3 * [[0, 2, 4, 7], [9, 11]]
    captions = [caption for call in generated[:2] for caption in call.captions]
    images = torch.cat([call.images for call in generated[:2]])
    together = open_model(finished_run.root).generate(captions, 2, 2.0, 0, image_ids=[0, 2, 4, 7, 9, 11])
    assert torch.allclose(images, together, atol=1 / 255)


@pytest.mark.parametrize("guidance", ["-0.5", "-1", "nan", "inf"])
@pytest.mark.parametrize("command", ["sample", "compare-samplers"])
def test_guidance_below_zero_is_refused(here, command, guidance):
    result = lcm(command, CAPTION, "--steps", 1, "--guidance", guidance)
    assert result.exit_code == 2
    assert f"lcm: --guidance is {float(guidance)}: it must be 0 or more" in result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(("command", "steps"), [("sample", "4,0"), ("compare-samplers", "10001")])
def test_steps_out_of_range_are_refused_by_the_name_of_their_option(here, command, steps):
    result = lcm(command, CAPTION, "--steps", steps)
    assert result.exit_code == 2
    assert f"lcm: --steps is {steps.split(',')[-1]}: it must be" in result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("command", ["sample", "compare-samplers"])
def test_seeds_out_of_range_are_refused_before_a_model_is_opened(here, command, monkeypatch):
    assert lcm(command, CAPTION, "--seed", -1).exit_code == 2
    monkeypatch.setattr(stage, "open_model", None)
    result = lcm(command, CAPTION, "--seed", 2**64)
    assert result.exit_code == 2
    assert "seed is 18446744073709551616: it must be a whole number" in result.stderr.strip().splitlines()[-1]


def test_a_students_file_alone(here, finished_run, generated):
    shutil.copy(finished_run.student, "student.safetensors")
    assert lcm("sample", CAPTION, "--run", "student.safetensors", "--steps", 2).exit_code == 0
    (call,) = generated
    assert call.guidance == 2.0 and call.sampler == Consistency((80.0, 3.0))  # the middle of 1 to 3
    assert torch.equal(call.images, open_model(finished_run.root).generate([CAPTION], 2, 2.0, 0))
    result = lcm("compare-samplers", CAPTION, "--run", "student.safetensors")
    assert result.exit_code == 2 and "holds no teacher: give a run folder" in result.stderr.splitlines()[-1]
    result = lcm("sample", "--prompts", "held-out", "--run", "student.safetensors")
    assert result.exit_code == 2 and "needs a run's data set" in result.stderr.splitlines()[-1]


def test_a_run_folder_comes_before_the_model_that_ships(here, finished_run, generated):
    shutil.copytree(finished_run.root, here / "shapes")
    for where in ("shapes", "./shapes"):
        assert lcm("sample", CAPTION, "--run", where, "--steps", 1, "--seed", 7).exit_code == 0
        assert lcm("compare-samplers", CAPTION, "--run", where, "--steps", 1, "--seed", 7).exit_code == 0
    named, by_path = generated[:3], generated[3:]
    assert all(torch.equal(one.images, other.images) for one, other in zip(named, by_path, strict=True))
    shutil.rmtree(here / "shapes")
    assert lcm("sample", CAPTION, "--run", "shapes", "--steps", 1, "--seed", 7).exit_code == 0
    assert not torch.equal(generated[-1].images, named[0].images)


def test_samples_and_figures_are_made_at_the_same_sigmas(here, finished_run, generated):
    shutil.copytree(finished_run.root, here / "own")
    own = ["--set", "evaluate.student_sigmas={3=[80.0, 5.0, 1.0]}", "--set", "evaluate.student_steps=[3]"]
    evaluated = lcm("evaluate", "--run", "own", *own, "--models", "student", "--images-only")
    assert evaluated.exit_code == 0, evaluated.output
    assert lcm("sample", CAPTION, "--run", "own", "--steps", 3).exit_code == 0
    assert generated[-1].sampler == generated[0].sampler == Consistency((80.0, 5.0, 1.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to generate: give captions, or --prompts"),
        ([CAPTION, " "], "caption 2 is empty: give words, or leave it out"),
        ([CAPTION, "--prompts", "parti"], "captions and --prompts parti exclude each other: leave one of them out"),
        (["--prompts", "gone.txt"], "gone.txt is missing"),
        (["--prompts", "held-out"], "--prompts held-out needs a run's data set"),
    ],
)
def test_wrong_choices_are_one_line(here, arguments, message):
    for command in ("sample", "compare-samplers"):
        result = lcm(command, *arguments)
        assert result.exit_code == 2 and message in result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.webp", "a.bmp", "a.png.txt"])
@pytest.mark.parametrize("command", ["sample", "compare-samplers"])
def test_a_sheet_is_no_png_file_by_another_name(here, command, name, monkeypatch):
    monkeypatch.setattr(stage, "open_model", None)
    result = lcm(command, CAPTION, "--out", name)
    said = f"lcm: --out {name} would be a PNG file by another name: give {Path(name).with_suffix('.png')}, or a folder"
    assert result.exit_code == 2 and result.stderr.strip().splitlines()[-1].startswith(said)
    assert not Path(name).exists()


def test_a_folder_and_a_png_file_may_have_any_name(here):
    Path("a.jpg").mkdir()
    for out, sheet in (("a.jpg", "a.jpg/sheet.png"), ("A.PNG", "A.PNG")):
        assert lcm("sample", CAPTION, "--steps", 1, "--out", out).exit_code == 0
        assert Path(sheet).read_bytes().startswith(b"\x89PNG")


def test_parti_that_is_not_there(here):
    (here / "PartiPrompts.tsv").unlink()
    assert (
        "PartiPrompts.tsv is missing: take it from google-research/parti" in lcm("sample", "--prompts", "parti").stderr
    )


def test_prompts_are_spread_evenly(here):
    assert [prompt.image_id for prompt in stage.choose_prompts("shapes", [], "parti", 4)] == [0, 7, 15, 22]
    assert len(stage.choose_prompts("shapes", [], "parti", 99)) == 30
    shutil.copy("PartiPrompts.tsv", "own.tsv")
    assert stage.choose_prompts("shapes", [], "own.tsv", 1)[0].caption == 'a "0" ring'
