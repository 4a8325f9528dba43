"""`lcm sample` and `lcm compare-samplers`: what is drawn, and the one line for what cannot be."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from lcm_distill.api import open_model
from lcm_distill.cli import app
from lcm_distill.stages import sample as stage

CAPTION = "a large red circle in the centre on a navy background"


def lcm(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with PartiPrompts of 30 rows."""
    monkeypatch.chdir(tmp_path)
    rows = [f'a "{number}" ring\tWorld\tBasic\t' for number in range(30)]
    (tmp_path / "PartiPrompts.tsv").write_text("\n".join(["Prompt\tCategory\tChallenge\tNote", *rows]) + "\n")
    return tmp_path


@pytest.fixture
def drawn(monkeypatch):
    """Every call of `generate`: captions, steps, guidance, seed and image ids; and what it returned."""
    from lcm_distill.api import TextToImage

    calls, real = [], TextToImage.generate

    def generate(model, *arguments, **options):
        images = real(model, *arguments, **options)
        calls.append((type(model).__name__, arguments, options.get("image_ids"), images))
        return images

    monkeypatch.setattr(TextToImage, "generate", generate)
    return calls


def test_some_of_parti_in_a_gallery(here, drawn):
    result = lcm("sample", "--prompts", "parti", "--count", 6, "--steps", 1, "--seed", 5, "--out", "grid.png", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["prompts"] == [f'a "{number}" ring' for number in (0, 5, 10, 15, 20, 25)]
    ((_, (captions, steps, guidance, seed), ids, _),) = drawn
    assert (captions, steps, guidance, seed) == (told["prompts"], 1, 2.0, 5) and ids == [0, 5, 10, 15, 20, 25]
    with Image.open("grid.png") as grid:
        assert grid.size[0] == 8 + 4 * (128 + 8)


def test_held_out_captions_of_a_run(here, finished_run, drawn):
    assert lcm("sample", "--prompts", "held-out", "--count", 2, "--run", finished_run.root).exit_code == 0
    assert [call[1][1] for call in drawn] == [1, 2, 4] and len(drawn[0][1][0]) == 2


def test_teacher_and_student_from_the_same_noise(here, drawn):
    result = lcm("compare-samplers", CAPTION, "--steps", 2, "--seed", 3, "--guidance", 1.5)
    assert result.exit_code == 0, result.output
    (teacher, arguments, ids, first), (student, others, other_ids, second) = drawn
    assert (teacher, student) == ("LatentDiffusion", "LatentConsistencyModel")
    assert arguments == others == ([CAPTION], 2, 1.5, 3) and ids == other_ids == [0]
    model = open_model("shapes", "teacher")
    assert np.allclose(model.generate([CAPTION], 2, 1.5, 3), first, atol=1e-5)
    with Image.open("compare-samplers.png") as grid:
        pixels = np.asarray(grid)
    for column, images in enumerate((first, second)):
        left = 8 + 190 + column * 136
        wanted = (images[0] * 255).round().byte().permute(1, 2, 0).numpy().repeat(2, 0).repeat(2, 1)
        assert np.array_equal(pixels[-136:-8, left : left + 128], wanted)


def test_captions_go_in_batches_of_the_run(here, finished_run, drawn):
    """Four to a batch, as the run's configuration has it; images are those of one batch."""
    options = ["--prompts", "held-out", "--count", 6, "--run", finished_run.root, "--steps", 2]
    for command in ("sample", "compare-samplers"):
        assert lcm(command, *options, "--out", f"{command}.png").exit_code == 0
    assert [ids for _, _, ids, _ in drawn] == 3 * [[0, 2, 4, 7], [9, 11]]
    captions = [caption for call in drawn[:2] for caption in call[1][0]]
    images = torch.cat([call[3] for call in drawn[:2]])
    together = open_model(finished_run.root).generate(captions, 2, 2.0, 0, image_ids=[0, 2, 4, 7, 9, 11])
    assert torch.allclose(images, together, atol=1 / 255)


@pytest.mark.parametrize("guidance", ["0", "0.5", "-1", "nan", "inf"])
@pytest.mark.parametrize("command", ["sample", "compare-samplers"])
def test_guidance_below_one_is_refused(here, command, guidance):
    result = lcm(command, CAPTION, "--steps", 1, "--guidance", guidance)
    assert result.exit_code == 2
    assert f"guidance_scale is {float(guidance)}: it must be 1 or more" in result.stderr.strip().splitlines()[-1]


def test_a_negative_seed_is_refused(here):
    assert lcm("sample", CAPTION, "--seed", -1).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to draw: captions, or --prompts"),
        ([CAPTION, "--prompts", "parti"], "say what to draw"),
        (["--prompts", "gone.txt"], "gone.txt is missing"),
        (["--prompts", "held-out"], "--prompts held-out wants captions of a run"),
    ],
)
def test_wrong_choices_are_one_line(here, arguments, message):
    for command in ("sample", "compare-samplers"):
        result = lcm(command, *arguments)
        assert result.exit_code == 2 and message in result.stderr.strip().splitlines()[-1]


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
