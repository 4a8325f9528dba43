"""The Python interface: text in, images out.

model = create_latent_cm(dit_ckpt_path="consistency_dit.pt", latent_res=64, pos_interp_scale=2.0).to("cuda")
images = model.generate(["An astronaut riding a horse"], num_inference_steps=5, guidance_scale=7.0, seed=2024)
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from lcm_distill import assets
from lcm_distill.api.requests import check_settings
from lcm_distill.api.text_to_image import LatentConsistencyModel, LatentDiffusion, TextToImage
from lcm_distill.config import (
    Config,
    DiffusionConfig,
    EncodersConfig,
    ModelConfig,
    NetworkConfig,
    Weights,
    load_file,
    load_preset,
)
from lcm_distill.core.errors import UserError
from lcm_distill.data.teacher_fit import trained_student
from lcm_distill.encoders.images import ImageEncoder, load_image_encoder
from lcm_distill.encoders.text import TextEncoder, load_text_encoder
from lcm_distill.models import MicroDiT, fill, load_checkpoint
from lcm_distill.models.checkpoint_description import read_description
from lcm_distill.models.networks import build_network, read_teacher, teacher_path
from lcm_distill.models.student_description import StudentSampling, read_sampling, read_student
from lcm_distill.models.weight_files import index_in
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.run_place import no_run

__all__ = [
    "DFN5B_CLIP", "SDXL_VAE", "SHIPPED", "LatentConsistencyModel", "LatentDiffusion", "Role", "TextToImage", "assemble",
    "assemble_untrained", "check_settings", "create_latent_cm", "create_latent_diffusion", "is_file", "is_shipped",
    "open_config", "open_model", "open_student",
]  # fmt: skip

SDXL_VAE = "stabilityai/stable-diffusion-xl-base-1.0"
DFN5B_CLIP = "openclip:hf-hub:apple/DFN5B-CLIP-ViT-H-14-378"
SHIPPED = "shapes"
"""Name of the model that ships with the package; a run folder of that name comes first."""

INSTEAD = "give a run folder, a student's file, or `shapes`, which ships"
"""Of a path that is no model."""

Role = Literal["student", "teacher"]


class Parts(NamedTuple):
    """The networks of a text-to-image model."""

    network: MicroDiT
    image_encoder: ImageEncoder
    text_encoder: TextEncoder


def create_latent_diffusion(
    vae_name: str = SDXL_VAE,
    text_encoder_name: str = DFN5B_CLIP,
    dit_arch: str = "MicroDiT_XL_2",
    dit_ckpt_path: str | Path | None = None,
    latent_res: int = 32,
    in_channels: int = 4,
    pos_interp_scale: float = 1.0,
    p_mean: float = -0.6,
    p_std: float = 1.2,
) -> LatentDiffusion:
    """A teacher from the names of its parts; without a checkpoint its transformer is freshly initialised.

    Args:
        vae_name, text_encoder_name: as `encoders.vae` and `encoders.text` of the configuration.
        dit_arch: `MicroDiT_XL_2`, `MicroDiT_Tiny_2` or `MicroDiT_Nano_2`.
        dit_ckpt_path: a `.safetensors` or `.pt` file.
        latent_res: height and width of the latents: 32 for 256 px, 64 for 512 px with the SDXL VAE.
        in_channels: channels of the latents.
        pos_interp_scale: divides token positions; 2.0 runs a 256 px network at 512 px.
        p_mean, p_std: training's sigma distribution, for callers of the original; generation does not use them.

    Raises:
        UserError: a name is unknown, weights cannot be read or fetched, or the checkpoint does not fit.
    """
    del p_mean, p_std
    sizes = NetworkConfig(
        arch=dit_arch, latent_size=latent_res, in_channels=in_channels, pos_interp_scale=pos_interp_scale
    )
    return LatentDiffusion(*_parts(sizes, vae_name, text_encoder_name, dit_ckpt_path, "teacher"), DiffusionConfig())


def create_latent_cm(
    vae_name: str = SDXL_VAE,
    text_encoder_name: str = DFN5B_CLIP,
    dit_arch: str = "MicroDiT_XL_2",
    dit_ckpt_path: str | Path | None = None,
    latent_res: int = 32,
    in_channels: int = 4,
    pos_interp_scale: float = 1.0,
    p_mean: float = -0.6,
    p_std: float = 1.2,
) -> LatentConsistencyModel:
    """A student from the names of its parts; with a teacher's checkpoint it equals the teacher.

    Sigmas, guidance range and phases are those recorded in a checkpoint that this package published.

    Args and errors are those of `create_latent_diffusion`.
    """
    del p_mean, p_std
    sizes = NetworkConfig(
        arch=dit_arch, latent_size=latent_res, in_channels=in_channels, pos_interp_scale=pos_interp_scale
    )
    parts = _parts(sizes, vae_name, text_encoder_name, dit_ckpt_path, "student")
    return LatentConsistencyModel(*parts, _sampling(dit_ckpt_path, DiffusionConfig(), or_teacher=True))


def open_model(where: str | Path, role: Role = "student", checkpoint: Path | None = None) -> TextToImage:
    """Open a model on the CPU, in float32.

    Args:
        where: a run folder, a student's file that describes itself, or, where no run folder has that name, `shapes`
            for the model that ships.
        checkpoint: a file from elsewhere instead of the run's student or teacher, of the sizes that `where` has.

    Raises:
        UserError: there is no such model, or the file does not record all that is needed to open it.
    """
    if is_file(where) and checkpoint is None:
        if role == "teacher":
            raise UserError(f"{where} {_no_teacher(Path(where))}")
        return open_student(Path(where))
    config = open_config(where)
    chosen = checkpoint or (_student(where, config) if role == "student" else teacher_path(config.model))
    sigmas = config.evaluate.student_sigmas
    model = assemble(config.model, config.encoders, config.diffusion, chosen, role, sigmas)
    if role == "teacher":
        model.default_guidance = config.evaluate.guidance[0]  # its file records none
    return model


def _no_teacher(path: Path) -> str:
    """Why a file alone opens no teacher, and what does."""
    match read_description(path).get("role"):
        case "student":
            return "is a student's file and holds no teacher: give a run folder"
        case "teacher":
            return (
                "is a teacher's file, which does not name its VAE and text encoder: give a run folder, and the file as "
                "--teacher, or use create_latent_diffusion()"
            )
        case _:
            return (
                "does not describe its network: give a run folder, and the file as --teacher, or use "
                "create_latent_diffusion()"
            )


def is_shipped(where: str | Path) -> bool:
    """Whether this is the name of the model that ships, and no run folder."""
    return str(where) == SHIPPED and not RunFolder(Path(where)).exists


def is_file(where: str | Path) -> bool:
    """Whether this is a file, and not the model that ships."""
    return not is_shipped(where) and Path(where).is_file()


def _student(where: str | Path, config: Config) -> Path:
    if is_shipped(where):
        return assets.STUDENT
    run = RunFolder(Path(where))
    return trained_student(config, run)


def open_student(path: Path) -> LatentConsistencyModel:
    """Open a student from its file alone, which records its sizes, encoders and sampling.

    Raises:
        UserError: the file is missing or unreadable, or lacks some of that.
    """
    student = read_student(path)
    if student is None:
        instead = ", but a teacher" if read_description(path).get("role") == "teacher" else ""
        raise UserError(
            f"{path} does not describe a student{instead}: give a run folder, and this file as --student if it is one "
            "(checkpoint= in Python), or use create_latent_cm()"
        )
    if student.encoders is None:
        raise UserError(
            f"{path} is of an older version and does not name its VAE and text encoder: give its run folder, or use "
            "create_latent_cm()"
        )
    encoders = student.encoders
    parts = _parts(student.model, encoders.vae, encoders.text, path, "student", encoders.weights)
    return LatentConsistencyModel(*parts, student)


def open_config(where: str | Path) -> Config:
    """The configuration of a run folder, or of the model that ships.

    Raises:
        UserError: the folder is no run.
    """
    if where == "":  # which as a path would be the working directory
        raise UserError(f"no model is named: {INSTEAD}")
    if is_shipped(where):
        return load_preset(SHIPPED)
    run = RunFolder(Path(where))
    if is_file(where):
        raise UserError(f"{where} is a file: beside another checkpoint give a run folder, or `shapes`, which ships")
    if not run.exists:
        raise _no_run(str(where), run.root)
    return load_file(run.config)


def _no_run(where: str, folder: Path) -> UserError:
    """What a path is that is no run folder, and what opens it or stands for it."""
    if index := index_in(folder):
        return UserError(f"{where} is the folder of a sharded checkpoint: give {index}")
    if (folder / "model_index.json").is_file() or (folder / "modular_model_index.json").is_file():
        weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
        also = f"; here, give {weights}" if weights.is_file() else ""
        return UserError(f"{where} is a folder for diffusers: DiffusionPipeline.from_pretrained opens it{also}")
    if (folder / "sampling.json").is_file():
        return UserError(f"{where} is a folder for ONNX Runtime: examples/draw_with_onnx.py generates images from it")
    return no_run(folder, INSTEAD)


def assemble(
    model: NetworkConfig,
    encoders: EncodersConfig,
    diffusion: DiffusionConfig,
    checkpoint: Path | None,
    role: Role,
    sigmas: Mapping[int, list[float]] | None = None,
) -> TextToImage:
    """A teacher or student from sections of the configuration, on the CPU, in float32.

    Args:
        encoders: with `weights = "random"` the encoders are those the cache was made with, and images show nothing.
        diffusion: for a student only if its checkpoint records none.
        checkpoint: None for a freshly initialised transformer.
        sigmas: of a student, for numbers of steps that its checkpoint records none for.

    Raises:
        UserError: weights cannot be read or fetched, or the checkpoint does not fit.
    """
    sampling = None if role == "teacher" else _sampling(checkpoint, diffusion).or_else(sigmas or {})
    parts = _parts(model, encoders.vae, encoders.text, checkpoint, role, encoders.weights)
    return LatentConsistencyModel(*parts, sampling) if sampling else LatentDiffusion(*parts, diffusion)


def assemble_untrained(
    model: ModelConfig, encoders: EncodersConfig, sampling: StudentSampling
) -> LatentConsistencyModel:
    """A student before its training, on the CPU, in float32: the teacher's weights, and no response to guidance scales.

    Args:
        sampling: of the student that it is compared with. What that was trained on counts for nothing here.

    Raises:
        UserError: the teacher's checkpoint is missing, unreadable or does not fit the configured sizes.
    """
    network = build_network(model, guidance_embedding=True, empty=True)
    fill(network, read_teacher(model), teacher_path(model))
    image_encoder = load_image_encoder(encoders.vae, encoders.weights)
    text_encoder = load_text_encoder(encoders.text, encoders.weights)
    untrained = sampling.model_copy(update={"guidance_range": None})
    return LatentConsistencyModel(network, image_encoder, text_encoder, untrained)


def _parts(
    sizes: NetworkConfig,
    vae: str,
    text: str,
    checkpoint: str | Path | None,
    role: Role,
    weights: Weights = "pretrained",
) -> Parts:
    text_encoder = load_text_encoder(text, weights)
    sizes = sizes.model_copy(update={"caption_channels": text_encoder.width})
    network = build_network(sizes, guidance_embedding=role == "student", empty=checkpoint is not None)
    if checkpoint is not None:
        load_checkpoint(network, checkpoint)
    return Parts(network, load_image_encoder(vae, weights), text_encoder)


def _sampling(checkpoint: str | Path | None, diffusion: DiffusionConfig, or_teacher: bool = False) -> StudentSampling:
    if checkpoint is None:
        return StudentSampling(diffusion=diffusion)
    return read_sampling(Path(checkpoint), diffusion, or_teacher)
