"""The Python interface: text in, images out.

model = create_latent_cm(dit_ckpt_path="consistency_dit.pt", latent_res=64, pos_interp_scale=2.0).to("cuda")
images = model.generate(["An astronaut riding a horse"], num_inference_steps=5, guidance_scale=7.0, seed=2024)
"""

import math
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from lcm_distill import assets
from lcm_distill.config import Config, DiffusionConfig, EncodersConfig, Weights, load_file, load_preset
from lcm_distill.core.device import to_device
from lcm_distill.core.errors import UserError
from lcm_distill.core.randomness import normal
from lcm_distill.diffusion.guidance import guided_denoiser
from lcm_distill.diffusion.noise import karras_sigmas
from lcm_distill.diffusion.preconditioning import consistency_function, edm_denoiser
from lcm_distill.diffusion.samplers import SOLVERS, sample_consistency, sample_edm, sample_phased
from lcm_distill.encoders.images import ImageEncoder, load_image_encoder
from lcm_distill.encoders.text import TextEncoder, load_text_encoder
from lcm_distill.models import MicroDiT, build, build_empty, load_checkpoint
from lcm_distill.models.checkpoint import read_description
from lcm_distill.models.precision import lower
from lcm_distill.pipeline.run_folder import RunFolder

SDXL_VAE = "stabilityai/stable-diffusion-xl-base-1.0"
DFN5B_CLIP = "openclip:hf-hub:apple/DFN5B-CLIP-ViT-H-14-378"

Noise = Callable[[int], Tensor]
"""Step of the sampler -> standard normal (B, C, h, w)."""


class TextToImage:
    """A transformer between a text encoder and the decoder of a VAE. Subclasses know how to sample."""

    default_steps: int

    def __init__(
        self, network: MicroDiT, image_encoder: ImageEncoder, text_encoder: TextEncoder, levels: DiffusionConfig
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.image_encoder, self.text_encoder, self.levels = image_encoder, text_encoder, levels
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> Self:
        """Move all weights; returns self.

        Args:
            dtype: what transformer and VAE compute in: `torch.float32`, as they do at first, or `torch.bfloat16`, which
                rounds their weights for good. Noise, solver steps and the text encoder stay float32. None changes
                nothing.

        Raises:
            UserError: the dtype is another, or the weights are rounded already.
        """
        if dtype not in (None, self.dtype):
            self._lower(dtype)
        self.device = torch.device(device)
        self.network.to(self.device)
        self.image_encoder.to(self.device)
        self.text_encoder.to(self.device)
        return self

    def _lower(self, dtype: torch.dtype) -> None:
        if (self.dtype, dtype) != (torch.float32, torch.bfloat16):
            raise UserError(
                f"dtype is {dtype} and this model computes in {self.dtype}: only float32 can be changed, to bfloat16; "
                "open the model again"
            )
        lower(self.network)
        self.image_encoder.vae.type(dtype)
        self.dtype = dtype

    @torch.inference_mode()
    def generate(
        self,
        prompt: str | Sequence[str],
        num_inference_steps: int | None = None,
        guidance_scale: float = 5.0,
        seed: int | None = None,
        image_ids: Sequence[int] | None = None,
    ) -> Tensor:
        """Images of prompts.

        Args:
            prompt: one caption or several.
            num_inference_steps: steps of the sampler; each kind of model has its own default.
            guidance_scale: 1 or more and finite; 1 is no guidance.
            seed: 0 or more, below 2**63; None draws one, so that two calls differ.
            image_ids: numbers that, with the seed, decide each image's noise, whatever the batch it is
                drawn in; 0, 1, 2 ... by default.

        Returns:
            (B, 3, H, W), float32 in [0, 1], on the model's device.

        Raises:
            UserError: there is no prompt, or a setting is out of range.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        steps = self.default_steps if num_inference_steps is None else num_inference_steps
        ids = list(range(len(prompts)) if image_ids is None else image_ids)
        _check(prompts, steps, guidance_scale, seed, ids)
        seed = secrets.randbits(62) if seed is None else seed
        side, channels = self.network.latent_size, self.network.in_channels

        def noise(step: int) -> Tensor:
            return to_device(normal(seed, "generate", step, ids, (channels, side, side)), self.device)

        captions = self.text_encoder.encode(prompts).to(self.device)
        return self.image_encoder.decode(self._sample(noise, captions, float(guidance_scale), steps))

    def _sample(self, noise: Noise, captions: Tensor, guidance: float, steps: int) -> Tensor:
        """Latents (B, C, h, w), float32; nothing on the way waits for a GPU."""
        raise NotImplementedError

    def _scales(self, guidance: float, captions: Tensor) -> Tensor:
        """The guidance scale of each caption, (B,), float32."""
        return torch.full((len(captions),), guidance, device=self.device)


class LatentDiffusion(TextToImage):
    """A teacher: EDM's deterministic sampler with classifier-free guidance.

    Attributes:
        solver: `heun` or `euler`.
    """

    default_steps = 30
    solver: Literal["heun", "euler"] = "heun"

    def _sample(self, noise: Noise, captions: Tensor, guidance: float, steps: int) -> Tensor:
        levels = self.levels
        sigmas = karras_sigmas(steps, levels.sigma_min, levels.sigma_max, levels.rho)
        if guidance == 1:
            denoise = edm_denoiser(self.network, levels.sigma_data, captions)
        else:
            denoise = guided_denoiser(self.network, levels.sigma_data, captions, self._scales(guidance, captions))
        return sample_edm(denoise, noise(0), sigmas, SOLVERS[self.solver])


class LatentConsistencyModel(TextToImage):
    """A student: the multistep consistency sampler, with guidance as an input of the network.

    Attributes:
        sigmas: noise levels to jump from, by number of steps; other numbers of steps take the levels of EDM's
            schedule, less the lowest, from which a jump would change nothing.
        guidance_range: scales the student was trained on; others are served with a warning.
        phases: upper edges of the phases a student was trained within, falling; it draws in as many steps, without
            fresh noise. None for a student of the whole trajectory.
    """

    default_steps = 4
    sigmas: Mapping[int, Sequence[float]]
    guidance_range: tuple[float, float] | None
    phases: Sequence[float] | None

    def __init__(
        self,
        network: MicroDiT,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        levels: DiffusionConfig,
        sigmas: Mapping[int, Sequence[float]] | None = None,
        guidance_range: tuple[float, float] | None = None,
        phases: Sequence[float] | None = None,
    ) -> None:
        super().__init__(network, image_encoder, text_encoder, levels)
        self.sigmas, self.guidance_range, self.phases = sigmas or {}, guidance_range, phases
        if phases is not None:
            self.default_steps = len(phases)

    def sigmas_for(self, steps: int) -> Tensor:
        """Noise levels of a number of steps, (steps,), float64, falling."""
        if steps in self.sigmas:
            return torch.tensor(self.sigmas[steps], dtype=torch.float64)
        levels = self.levels
        return karras_sigmas(steps + 1, levels.sigma_min, levels.sigma_max, levels.rho)[:steps]

    def _sample(self, noise: Noise, captions: Tensor, guidance: float, steps: int) -> Tensor:
        low, high = self.guidance_range or (1.0, float("inf"))
        if not low <= guidance <= high:
            warnings.warn(
                f"guidance {guidance:g} lies outside {low:g} to {high:g}, which this student was trained on",
                stacklevel=3,
            )
        sigma_min, scales = self.levels.sigma_min, self._scales(guidance, captions)
        jump = consistency_function(self.network, self.levels.sigma_data, sigma_min, captions, scales)
        if self.phases is None:
            return sample_consistency(jump, noise(0), self.sigmas_for(steps), sigma_min, noise)
        if steps != len(self.phases):
            raise UserError(
                f"num_inference_steps is {steps}: this student was trained in {len(self.phases)} phases and draws in "
                f"{len(self.phases)} steps"
            )
        return sample_phased(jump, noise(0), torch.tensor(self.phases, dtype=torch.float64), sigma_min)


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
        latent_res: height and width of the latents: 32 for 256 px, 64 for 512 px with the SDXL VAE.
        p_mean, p_std: training's noise levels. Accepted because calls of the original pass them; drawing images
            does not use them.
    """
    del p_mean, p_std
    parts = _parts(
        vae_name, text_encoder_name, dit_arch, dit_ckpt_path, latent_res, in_channels, pos_interp_scale, False
    )
    return LatentDiffusion(*parts, DiffusionConfig())


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
    """A student from the names of its parts; a teacher's checkpoint gives a student that equals the teacher.

    Noise levels and guidance range are taken from a checkpoint that this package published.

    Args:
        latent_res: height and width of the latents: 32 for 256 px, 64 for 512 px with the SDXL VAE.
        p_mean, p_std: training's noise levels. Accepted because calls of the original pass them; drawing images
            does not use them.
    """
    del p_mean, p_std
    parts = _parts(
        vae_name, text_encoder_name, dit_arch, dit_ckpt_path, latent_res, in_channels, pos_interp_scale, True
    )
    return LatentConsistencyModel(*parts, DiffusionConfig(), **_sampling_of(dit_ckpt_path))


def open_model(where: str | Path, role: Literal["student", "teacher"] = "student") -> TextToImage:
    """The model of a run folder, or the one that ships, for `shapes`.

    Raises:
        UserError: the folder is no run, or holds no such checkpoint yet.
    """
    config = open_config(where)
    student = assets.STUDENT if str(where) == "shapes" else RunFolder(Path(where)).student
    teacher = assets.teacher(config.model.teacher)
    checkpoint = student if role == "student" else teacher
    return assemble(config.model.model_dump(), config.encoders, config.diffusion, checkpoint, role)


def open_config(where: str | Path) -> Config:
    """The configuration of a run folder, or of the model that ships, for `shapes`.

    Raises:
        UserError: the folder is no run.
    """
    if str(where) == "shapes":
        return load_preset("shapes")
    run = RunFolder(Path(where))
    run.require(run.config, "give a run folder, or `shapes` for the model that ships")
    return load_file(run.config)


def assemble(
    model: Mapping[str, Any], encoders: EncodersConfig, levels: DiffusionConfig, checkpoint: Path, role: str
) -> TextToImage:
    """A teacher or student from its parts, in float32; `model` holds the keys of the configuration's `[model]`.

    With `encoders.weights = "random"` the encoders are those the cache was made with, and images show nothing.
    """
    parts = _parts(
        encoders.vae, encoders.text, model["arch"], checkpoint, model["latent_size"], model["in_channels"],
        model["pos_interp_scale"], role == "student", encoders.weights,
    )  # fmt: skip
    if role == "teacher":
        return LatentDiffusion(*parts, levels)
    return LatentConsistencyModel(*parts, levels, **_sampling_of(checkpoint))


def _parts(
    vae: str,
    text: str,
    arch: str,
    checkpoint: str | Path | None,
    latent_size: int,
    in_channels: int,
    pos_interp_scale: float,
    guidance_embedding: bool,
    weights: Weights = "pretrained",
) -> tuple[MicroDiT, ImageEncoder, TextEncoder]:
    text_encoder = load_text_encoder(text, weights)
    make = build if checkpoint is None else build_empty
    network = make(arch, latent_size, text_encoder.width, pos_interp_scale, in_channels, guidance_embedding)
    if checkpoint is not None:
        load_checkpoint(network, checkpoint)
    return network, load_image_encoder(vae, weights), text_encoder


def _sampling_of(checkpoint: str | Path | None) -> dict[str, Any]:
    """What a student's checkpoint says of how to sample from it; nothing for one of another origin."""
    if checkpoint is None or Path(checkpoint).suffix != ".safetensors":
        return {}
    description = read_description(Path(checkpoint))
    if description.get("role") != "student":
        return {}
    return {
        "sigmas": {int(steps): sigmas for steps, sigmas in description["sigmas"].items()},
        "guidance_range": tuple(description["guidance_range"]),
        "phases": description.get("phases"),
    }


def _check(prompts: Sequence[str], steps: int, guidance: float, seed: int | None, ids: Sequence[int]) -> None:
    if not prompts:
        raise UserError("there is no prompt to draw")
    if steps < 1:
        raise UserError(f"num_inference_steps is {steps}: it must be 1 or more")
    if not 1 <= guidance < math.inf:  # which NaN is not
        raise UserError(f"guidance_scale is {guidance}: it must be 1 or more, and finite")
    if seed is not None and not 0 <= seed < 2**63:
        raise UserError(f"seed is {seed}: it must be 0 or more, and below 2**63")
    if len(ids) != len(prompts):
        raise UserError(f"there are {len(prompts)} prompts and {len(ids)} image_ids")
