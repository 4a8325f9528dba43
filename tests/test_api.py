"""Text in, images out."""

import math
import warnings
from itertools import combinations
from pathlib import Path

import pytest
import torch

from lcm_distill import assets
from lcm_distill.api import LatentConsistencyModel, Role, create_latent_cm, create_latent_diffusion, open_model
from lcm_distill.config import load_file, load_preset
from lcm_distill.core.errors import UserError
from lcm_distill.core.randomness import normal
from lcm_distill.diffusion.few_step_samplers import Consistency, Original, Phased
from lcm_distill.diffusion.noise import karras_sigmas
from lcm_distill.diffusion.samplers import Euler, Heun
from lcm_distill.models.checkpoint import read_description, redescribe
from lcm_distill.models.student_description import StudentDescription, StudentSampling
from lcm_distill.pipeline.run_folder import RunFolder

PROMPTS = [
    "a large red circle in the centre on a navy background",
    "a small blue star at the top left on a cream background",
    "a medium green heart on the right on a slate background",
]
SHAPES = {
    "vae_name": "shapes",
    "text_encoder_name": "shapes",
    "dit_arch": "MicroDiT_Nano_2",
    "latent_res": 8,
    "in_channels": 8,
}


@pytest.fixture(scope="module")
def student() -> LatentConsistencyModel:
    return create_latent_cm(**SHAPES, dit_ckpt_path=assets.STUDENT, pos_interp_scale=1.0, p_mean=0, p_std=0.6).to("cpu")


def test_images_are_rgb_in_zero_to_one(student):
    images = student.generate(prompt=PROMPTS, num_inference_steps=4, guidance_scale=2.0, seed=2024)
    assert images.shape == (3, 3, 64, 64) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1


def test_student_sees_its_caption(student):
    red, blue = student.generate(PROMPTS[:2], 4, 2.0, seed=1)
    assert red[0, 32, 32] > 0.6 and red[2, 32, 32] < 0.5
    assert blue[:, -4:, -4:].mean() > 0.8  # cream


def test_seed_zero_is_a_seed_and_none_differs(student):
    generate = lambda seed: student.generate(PROMPTS[:1], 1, 2.0, seed=seed)  # noqa: E731
    assert torch.equal(generate(0), generate(0))
    assert not torch.equal(generate(0), generate(1))
    assert not torch.equal(generate(None), generate(None))
    with pytest.raises(UserError, match="seed is True: it must be a whole number"):
        generate(True)


def test_an_image_does_not_depend_on_its_batch(student):
    together = student.generate(PROMPTS, 2, 2.0, seed=3)
    alone = student.generate(PROMPTS[2], 2, 2.0, seed=3, image_ids=[2])
    assert torch.allclose(together[2:], alone, atol=1 / 255)


def test_teacher_and_its_unguided_form():
    teacher = create_latent_diffusion(**SHAPES, dit_ckpt_path=assets.TEACHER)
    guided, plain = (teacher.generate(PROMPTS[0], 4, scale, seed=0) for scale in (3.0, 1.0))
    assert guided.shape == (1, 3, 64, 64) and not torch.allclose(guided, plain, atol=0.01)


@pytest.mark.parametrize(("role", "steps"), [("student", 1), ("student", 4), ("teacher", 4)])
def test_bfloat16_changes_images_by_less_than_a_level_of_255(role, steps):
    """Measured over eight captions: 0.0009, 0.0010 and 0.0015 on average, 0.036 at most, of a range of 1."""
    exact, rounded = open_model("shapes", role), open_model("shapes", role).to("cpu", torch.bfloat16)
    images = [model.generate(PROMPTS, steps, 2.0, seed=0) for model in (exact, rounded)]
    assert images[1].dtype == torch.float32 and not torch.equal(*images)
    error = (images[0] - images[1]).abs()
    assert error.mean() < 1 / 255 and error.max() < 0.1


def test_weights_are_rounded_once_and_for_good():
    model = open_model("shapes").to("cpu", torch.float32)
    assert model.dtype == torch.float32
    model.to("cpu", torch.bfloat16).to("cpu")
    assert model.dtype == torch.bfloat16 and model.image_encoder.vae.dtype == torch.bfloat16
    block = model.network.blocks[0]
    assert block.get_parameter("attn.qkv.weight").dtype == torch.bfloat16
    assert block.get_parameter("norm1.weight").dtype == torch.float32
    assert next(model.text_encoder.tower.parameters()).dtype == torch.float32
    assert torch.equal(*(model.to("cpu", torch.bfloat16).generate(PROMPTS[0], 1, 2.0, seed=0) for _ in range(2)))
    for dtype in (torch.float32, torch.float16):
        with pytest.raises(UserError, match="open the model again"):
            model.to("cpu", dtype)


def test_steps_without_sigmas_of_their_own_waste_none(student):
    for steps in (1, 2, 3, 5, 8):
        sigmas = student.sampler(steps).sigmas
        assert len(sigmas) == steps and sigmas[0] == 80 and sigmas[-1] > 10 * student.diffusion.sigma_min


def test_guidance_outside_the_trained_range_warns(student):
    with pytest.warns(UserWarning, match="guidance 7 lies outside 1 to 3"):
        student.generate(PROMPTS[0], 1, 7.0, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        student.generate(PROMPTS[0], 1, 3.0, seed=0)


def test_without_a_guidance_scale_a_student_takes_the_middle_of_its_range(student):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(student.generate(PROMPTS[0], 1, seed=0), student.generate(PROMPTS[0], 1, 2.0, seed=0))
    assert StudentSampling().default_guidance == 5  # of an unknown range


def test_every_model_that_opens_has_a_default_scale_within_what_the_student_was_trained_on(finished_run):
    file = finished_run.root / "student.safetensors"
    low, high = load_file(finished_run.config).distill.guidance_range
    for where in ("shapes", finished_run.root, file):
        opened = [open_model(where, role) for role in ("student", "teacher") if role == "student" or where != file]
        assert all(low <= model.default_guidance <= high for model in opened)
    teacher = open_model("shapes", "teacher")
    given = teacher.generate(PROMPTS[0], 1, guidance_scale=2.0, seed=0)
    assert torch.equal(teacher.generate(PROMPTS[0], 1, seed=0), given)


def test_a_run_without_a_student_names_the_command_that_makes_it(tmp_path, small_config):
    RunFolder(tmp_path).open(small_config)
    with pytest.raises(UserError, match=r"student.safetensors is missing: run `lcm distill --run "):
        open_model(tmp_path)


def test_shipped_and_trained_models_open(finished_run):
    models: list[tuple[str | Path, Role]] = [
        ("shapes", "student"),
        ("shapes", "teacher"),
        (finished_run.root, "student"),
    ]
    for where, role in models:
        assert open_model(where, role).generate(PROMPTS[0], 1, 2.0, seed=0).shape == (1, 3, 64, 64)
    with pytest.raises(UserError, match="nowhere does not exist: give a run folder, a student's file, or `shapes`"):
        open_model(finished_run.root / "nowhere")


def test_a_sampler_can_be_given(student):
    images = student.generate(PROMPTS, 2, 2.0, seed=3)
    assert torch.equal(images, student.generate(PROMPTS, None, 2.0, 3, sampler=Consistency((80.0, 3.0))))
    assert not torch.equal(images, student.generate(PROMPTS, None, 2.0, 3, sampler=Consistency((80.0, 8.0))))
    teacher = open_model("shapes", "teacher")
    heun = teacher.generate(PROMPTS[0], 3, 2.0, 3)
    assert torch.equal(heun, teacher.generate(PROMPTS[0], None, 2.0, 3, sampler=Heun(3)))
    assert not torch.equal(heun, teacher.generate(PROMPTS[0], 3, 2.0, 3, sampler=Euler(3)))


def test_seeds_have_64_bits(student):
    draw = lambda seed: student.generate(PROMPTS[:1], 1, 2.0, seed=seed)  # noqa: E731
    images = [draw(seed) for seed in (2**63 - 1, 2**63, 2**63 + 1, 2**63 + 1024, 2**64 - 1)]
    assert all(not torch.equal(one, other) for one, other in combinations(images, 2))
    assert torch.equal(draw(2**63 + 1), images[2])


def test_noise_can_be_given(student):
    """Latents stand for the first step's noise; a generator draws that of all steps, one after the other."""
    draw = lambda **noise: student.generate(PROMPTS, 2, 2.0, **noise)  # noqa: E731
    generator = torch.Generator().manual_seed(5)
    first, second = (torch.randn(3, 8, 8, 8, generator=generator) for _ in range(2))
    drawn = draw(generator=torch.Generator().manual_seed(5))
    function = student.denoiser(student.text_encoder.encode(PROMPTS), 2.0)
    with torch.inference_mode():
        x = student.sampler(2)(function, lambda step: (first, second)[step])
        assert torch.equal(drawn, student.image_encoder.decode(x))
    generator.manual_seed(5)
    torch.randn(3, 8, 8, 8, generator=generator)
    assert torch.equal(draw(latents=first, generator=generator), drawn)
    seeded = draw(latents=normal(7, "generate", 0, range(3), (8, 8, 8)).double(), seed=7)
    assert torch.equal(seeded, draw(seed=7))
    each = draw(generator=[torch.Generator().manual_seed(seed) for seed in (1, 2, 3)])
    alone = student.generate(PROMPTS[1:2], 2, 2.0, generator=[torch.Generator().manual_seed(2)])
    assert torch.allclose(each[1:2], alone, atol=1 / 255)


def test_guidance_below_one_and_none():
    """Scale 0 is the null caption; without a scale a student's network is called as its teacher's is."""
    teacher = open_model("shapes", "teacher")
    images = {scale: teacher.generate(PROMPTS, 2, scale, seed=0) for scale in (None, 1.0, 0.5, 0.0)}
    assert torch.equal(images[None], images[1.0])
    assert not torch.equal(images[0.5], images[1.0]) and not torch.equal(images[0.5], images[0.0])
    null = create_latent_diffusion(**SHAPES, dit_ckpt_path=assets.TEACHER)
    null.text_encoder.encode = lambda captions: torch.zeros(len(captions), 16, null.text_encoder.width)
    assert torch.allclose(images[0.0], null.generate(PROMPTS, 2, 1.0, seed=0), atol=1e-4)
    student = create_latent_cm(**SHAPES, dit_ckpt_path=assets.STUDENT)
    captions, x = student.text_encoder.encode(PROMPTS[:1]), torch.ones(1, 8, 8, 8)
    with torch.inference_mode():
        jumped = student.denoiser(captions, None)(x, torch.tensor([2.0]))
        student.network.cfg_embedder = None
        assert torch.equal(student.denoiser(captions, None)(x, torch.tensor([2.0])), jumped)
    with pytest.warns(UserWarning, match=r"guidance 0\.5 lies outside 1 to 3"):
        open_model("shapes").generate(PROMPTS[0], 1, 0.5, seed=0)
    student.sampling = StudentSampling()  # of a file that records no range; 100 is far beyond any
    with warnings.catch_warnings(record=True, category=UserWarning) as said:
        warnings.simplefilter("always")
        student.denoiser(captions, 100.0)
        student.denoiser(captions, 0.5)
    assert [str(each.message) for each in said] == [
        "guidance 0.5 is below 1, which is no guidance: this student's file does not record what it was trained on"
    ]


def test_sigmas_outside_of_a_students_range_give_way_to_its_schedule(tmp_path):
    """Older versions published a student of other noise levels with the default's sigmas."""
    description = StudentDescription.of(load_preset("shapes", ["diffusion.sigma_max=20"]))
    path = tmp_path / "student.safetensors"
    path.write_bytes(redescribe(assets.STUDENT, description.to_json()))
    model = open_model(path)
    with pytest.warns(UserWarning, match=r"has sigmas \[80\.0, 3\.0\] for 2 steps, outside the 0\.002 to 20"):
        assert model.sampler(2).sigmas == pytest.approx(karras_sigmas(3, 0.002, 20.0, 7.0)[:2].tolist())


def test_a_students_file_opens_alone(tmp_path, student):
    description = StudentDescription.of(load_preset("shapes", ["diffusion.sigma_max=40"]))
    description = description.model_copy(update={"sigmas": {1: (40.0,), 2: (40.0, 3.0)}})
    path = tmp_path / "student.safetensors"
    path.write_bytes(redescribe(assets.STUDENT, description.to_json()))
    alone = open_model(path)
    assert isinstance(alone, LatentConsistencyModel) and alone.sampling.guidance_range == (1.0, 3.0)
    assert alone.sampler(2) == Consistency((40.0, 3.0)) and alone.sampler(3).sigmas[0] == pytest.approx(40)
    images = student.generate(PROMPTS, None, 2.0, 0, sampler=Consistency((40.0, 3.0)))
    assert torch.equal(alone.generate(PROMPTS, 2, 2.0, 0), images)
    with pytest.raises(UserError, match="holds no teacher: give a run folder"):
        open_model(path, "teacher")


def test_files_that_do_not_open_alone_name_the_remedy(tmp_path):
    older = {key: value for key, value in read_description(assets.STUDENT).items() if key != "encoders"}
    (tmp_path / "older.safetensors").write_bytes(redescribe(assets.STUDENT, older))
    torch.save({}, tmp_path / "plain.pt")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    for name, message in (
        ("older.safetensors", "does not name its VAE and text encoder: give its run folder"),
        ("plain.pt", "does not describe a student: give a run folder, and this file as --student if it is one"),
        ("broken.safetensors", "cannot be read"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            open_model(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="does not describe a student"):
        open_model(assets.TEACHER)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": []}, "no prompt"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"guidance_scale": -0.5}, "guidance_scale is -0.5: it must be 0 or more"),
        ({"guidance_scale": math.nan}, "guidance_scale is nan"),
        ({"guidance_scale": math.inf}, "guidance_scale is inf"),
        ({"guidance_scale": 1e308}, r"guidance_scale is 1e\+308: it must be 0 or more, and 1,000 at most"),
        ({"seed": -1}, "seed is -1: it must be a whole number from 0"),
        ({"seed": 2**64}, "seed is 18446744073709551616: it must be a whole number from 0 to"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"seed": math.nan}, "seed is nan: it must be a whole number"),
        ({"seed": math.inf}, "seed is inf: it must be a whole number"),
        ({"seed": "7"}, "seed is 7: it must be a whole number"),
        ({"num_inference_steps": math.nan}, "num_inference_steps is nan: it must be a whole number"),
        ({"num_inference_steps": math.inf}, "num_inference_steps is inf: it must be a whole number"),
        ({"image_ids": [1.5]}, "image_ids has 1.5: they must be whole numbers"),
        ({"image_ids": [math.nan]}, "image_ids has nan: they must be whole numbers"),
        ({"image_ids": [1, 2]}, "1 prompt and 2 image_ids"),
        ({"image_ids": [-1]}, "image_ids has -1"),
        (
            {"sampler": Heun(2)},
            "heun does not suit a LatentConsistencyModel: give Consistency or Deterministic or Phased or Original",
        ),
        ({"sampler": Consistency((80.0,)), "num_inference_steps": 2}, "num_inference_steps is 2 and the sampler has 1"),
        ({"sampler": Consistency((90.0, 2.0))}, r"sigmas = \[90.0, 2.0\]: .* fall, .* not above sigma_max 80"),
        ({"sampler": Original(3, sigma_max=120.0)}, "sampler original: .* not above sigma_max 80"),
        ({"sampler": Phased((81.0, 2.0))}, "sampler phased: .* not above sigma_max 80"),
        ({"generator": torch.Generator()}, "seed and generator are both given"),
        ({"seed": None, "generator": [torch.Generator()] * 2}, "1 prompt and 2 generators"),
        ({"latents": torch.zeros(1, 4, 8, 8)}, r"latents have shape \(1, 4, 8, 8\): \(1, 8, 8, 8\) is needed"),
        ({"latents": torch.full((1, 8, 8, 8), math.nan)}, "latents hold values that are not finite"),
    ],
)
def test_wrong_settings_are_refused(student, arguments, message):
    with pytest.raises(UserError, match=message):
        student.generate(**{"prompt": PROMPTS[0], "seed": 0, **arguments})


# diffusers 0.42 passes huggingface_hub 2 an argument that is gone.
@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument")
def test_weights_that_cannot_be_fetched_name_the_remedy(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="hf download nobody/nothing"):
        create_latent_cm(**{**SHAPES, "vae_name": "nobody/nothing"})
