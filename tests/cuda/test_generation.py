"""Generation on a GPU that is not there: fake tensors refuse operands on two devices and reads of their values.

A tensor's value that Python asks for (`bool(tensor)`, `.item()`) makes the CPU wait until the GPU's queue is empty.
"""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from lcm_distill.api import DFN5B_CLIP, SDXL_VAE, LatentConsistencyModel, LatentDiffusion, TextToImage
from lcm_distill.config import DiffusionConfig
from lcm_distill.diffusion.few_step_samplers import Consistency, Phased
from lcm_distill.diffusion.guidance import guided_denoiser
from lcm_distill.diffusion.preconditioning import consistency_function, edm_denoiser
from lcm_distill.diffusion.samplers import TEACHER_SAMPLERS
from lcm_distill.encoders.images import load_image_encoder
from lcm_distill.encoders.text import load_text_encoder
from lcm_distill.evaluation.generation import generation_dtype
from lcm_distill.models import MicroDiT, build
from lcm_distill.models.student_description import StudentSampling
from tests.command_line import lcm
from tests.cuda.walk import replace_tensors

PROMPTS = ["a large red heart in the centre on a cream background", "a small blue star"]
SHAPES, XL = ("shapes", "shapes", "MicroDiT_Nano_2", 8, 8), (SDXL_VAE, DFN5B_CLIP, "MicroDiT_XL_2", 64, 4)
SIGMAS = (80.0, 4.0, 1.5, 0.6)


@pytest.fixture
def fake(monkeypatch):
    """Fake tensors, and modules that can be moved with them. Nothing is pinned: they have no memory."""
    monkeypatch.setattr(nn.Module, "_apply", replace_tensors)
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def model(kind: type[TextToImage], vae: str, text: str, arch: str, latent_size: int, channels: int) -> TextToImage:
    """A model on the CPU whose weights have sizes and no values."""
    with torch.device("meta"):
        image_encoder, text_encoder = load_image_encoder(vae, "random"), load_text_encoder(text, "random")
        student = kind is LatentConsistencyModel
        network = build(arch, latent_size, text_encoder.width, 1.0, channels, guidance_embedding=student)
    for part in (network, image_encoder.vae, text_encoder.tower):
        part.to_empty(device="cpu")
    if kind is LatentConsistencyModel:
        return LatentConsistencyModel(network, image_encoder, text_encoder, StudentSampling(sigmas={2: (80.0, 2.0)}))
    return LatentDiffusion(network, image_encoder, text_encoder, DiffusionConfig())


def test_fake_tensors_have_no_values_and_stay_on_their_device(fake):
    there = torch.ones(2, device="cuda")
    with pytest.raises(DataDependentOutputException):
        bool(there.any())
    with pytest.raises(RuntimeError, match=r"at least two devices|two different devices"):
        _ = there + torch.ones(2)


@pytest.mark.parametrize(
    ("parts", "dtype"),
    [(SHAPES, torch.float32), (SHAPES, torch.bfloat16), (XL, torch.bfloat16)],
    ids=["shapes in float32", "shapes in bfloat16", "XL/2 in bfloat16"],
)
def test_a_student_generates(fake, parts, dtype):
    student = model(LatentConsistencyModel, *parts).to("cuda", dtype)
    images = student.generate(PROMPTS, 2, 2.0, seed=0)
    side = 8 * parts[3]
    assert (images.shape, images.device.type, images.dtype) == ((2, 3, side, side), "cuda", torch.float32)


@pytest.mark.parametrize(
    ("parts", "dtype"),
    [(SHAPES, torch.float32), (SHAPES, torch.bfloat16), pytest.param(XL, torch.bfloat16, marks=pytest.mark.slow)],
    ids=["shapes in float32", "shapes in bfloat16", "XL/2 in bfloat16"],
)
def test_a_teacher_generates(fake, parts, dtype):
    teacher = model(LatentDiffusion, *parts).to("cuda", dtype)
    for guidance in (1.0, 3.0):
        images = teacher.generate(PROMPTS, 2, guidance, seed=0)
        assert (images.device.type, images.dtype) == ("cuda", torch.float32)


def small_network() -> MicroDiT:
    with torch.device("meta"):
        network = build("MicroDiT_Nano_2", 8, 64, in_channels=8, guidance_embedding=True)
    return network.to_empty(device="cuda")


def noise(step: int) -> Tensor:
    return torch.empty(2, 8, 8, 8, device="cuda")


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("guided", [False, True])
def test_edm_sampler_never_waits_for_the_gpu(fake, solver, guided):
    network, captions = small_network(), torch.empty(2, 5, 64, device="cuda")
    guidance = torch.full((2,), 3.0, device="cuda")
    denoise = guided_denoiser(network, 0.9, captions, guidance) if guided else edm_denoiser(network, 0.9, captions)
    samples = TEACHER_SAMPLERS[solver](3)(denoise, noise)
    assert samples.device.type == "cuda" and samples.dtype == torch.float32


@pytest.mark.parametrize("sampler", [Consistency(SIGMAS), Phased(SIGMAS)], ids=["consistency", "phased"])
def test_a_students_samplers_never_wait_for_the_gpu(fake, sampler):
    network, captions = small_network(), torch.empty(2, 5, 64, device="cuda")
    jump = consistency_function(network, 0.9, 0.002, captions, torch.full((2,), 3.0, device="cuda"))
    samples = sampler(jump, noise)
    assert samples.device.type == "cuda" and samples.dtype == torch.float32


@pytest.mark.parametrize(
    ("count", "device", "dtype", "expected"),
    [
        (1, "auto", "auto", "bfloat16"),
        (1, "cuda:0", "auto", "bfloat16"),
        (1, "cpu", "auto", "float32"),
        (0, "auto", "auto", "float32"),
        (1, "auto", "float32", "float32"),
        (0, "cpu", "bfloat16", "bfloat16"),
    ],
)
def test_gpus_generate_in_bfloat16_unless_configured_otherwise(gpus, count, device, dtype, expected):
    double = gpus(count)
    assert generation_dtype(dtype, device) == expected
    assert double.made_current == []


@pytest.mark.parametrize("command", ["sample", "compare-samplers"])
@pytest.mark.parametrize(("count", "placed"), [(1, ("cuda:0", torch.bfloat16)), (0, ("cpu", torch.float32))])
def test_the_command_generates_on_the_gpu(gpus, tmp_path, monkeypatch, command, count, placed):
    """Places and dtypes that models are moved to; they stay where they are."""
    gpus(count)
    seen = []
    monkeypatch.setattr(TextToImage, "to", lambda model, *place: seen.append(place) or model)
    result = lcm(command, PROMPTS[0], "--steps", 1, "--out", tmp_path / "grid.png")
    assert result.exit_code == 0, result.output
    assert set(seen) == {(torch.device(placed[0]), placed[1])}
