"""Text-to-image models: a transformer between a text encoder and the decoder of a VAE."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Literal, Self, TypeVar, get_args

import torch
from torch import Tensor

from lcm_distill.api.requests import Generators, check_prompts, check_settings, noise_source
from lcm_distill.config import DiffusionConfig
from lcm_distill.core.errors import UserError
from lcm_distill.diffusion.few_step_samplers import Consistency, Deterministic, FewStepSampler, Original, Phased
from lcm_distill.diffusion.guidance import denoiser_at
from lcm_distill.diffusion.noise import require_falling
from lcm_distill.diffusion.preconditioning import Denoiser, consistency_function
from lcm_distill.diffusion.samplers import TEACHER_SAMPLERS, Euler, Heun, Noise, Sampler
from lcm_distill.encoders.images import ImageEncoder
from lcm_distill.encoders.text import TextEncoder
from lcm_distill.models import MicroDiT
from lcm_distill.models.precision import cast_matrices
from lcm_distill.models.student_description import DEFAULT_GUIDANCE, StudentSampler, StudentSampling

STUDENT_SAMPLERS: tuple[StudentSampler, ...] = get_args(StudentSampler)
Name = TypeVar("Name", bound=str)


class TextToImage:
    """A latent diffusion transformer with its VAE and text encoder; subclasses define how it is sampled from.

    Attributes:
        diffusion: sigma_data, sigma_min, sigma_max and rho.
        device, dtype: where transformer and encoders are, and what transformer and VAE compute in.
    """

    samplers: tuple[type[Sampler], ...]
    default_guidance = DEFAULT_GUIDANCE
    """Guidance scale where none is given."""

    def __init__(
        self, network: MicroDiT, image_encoder: ImageEncoder, text_encoder: TextEncoder, diffusion: DiffusionConfig
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.image_encoder, self.text_encoder, self.diffusion = image_encoder, text_encoder, diffusion
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> Self:
        """Move all weights; returns self.

        Args:
            dtype: what transformer and VAE compute in: `torch.float32`, the default, or `torch.bfloat16`, which rounds
                their weights irreversibly. Noise, sampler steps and text encoder stay float32. None changes nothing.

        Raises:
            UserError: the dtype is another, or the weights are rounded already.
        """
        if dtype not in (None, self.dtype):
            self._cast(dtype)
        self.device = torch.device(device)
        self.network.to(self.device)
        self.image_encoder.to(self.device)
        self.text_encoder.to(self.device)
        return self

    def _cast(self, dtype: torch.dtype) -> None:
        if (self.dtype, dtype) != (torch.float32, torch.bfloat16):
            raise UserError(
                f"dtype is {dtype} and this model computes in {self.dtype}: only float32 can be changed, to bfloat16; "
                "open the model again"
            )
        cast_matrices(self.network)
        self.image_encoder.vae.type(dtype)
        self.dtype = dtype

    @torch.inference_mode()
    def generate(
        self,
        prompt: str | Sequence[str],
        num_inference_steps: int | None = None,
        guidance_scale: float | Literal["own"] | None = "own",
        seed: int | None = None,
        image_ids: Sequence[int] | None = None,
        sampler: Sampler | str | None = None,
        latents: Tensor | None = None,
        generator: Generators | None = None,
    ) -> Tensor:
        """Generate images of prompts.

        Args:
            prompt: one caption or several.
            num_inference_steps: steps of the model's own sampler; each kind of model has a default.
            guidance_scale: 0 or more and finite; 1 is no guidance, 0 the null caption. None: no scale is given at all.
                By default the model's own: a student's middle of its trained range; a teacher's scale of its run's
                evaluation, or 5 without a run.
            seed: from 0 up to 2**64 - 1; None takes a random one.
            image_ids: one per prompt, from 0; with the seed they decide each image's noise. By default 0, 1, 2 ...
            sampler: samples instead of the model's own, in its own number of steps: `Heun` or `Euler` for a teacher,
                `Consistency`, `Deterministic`, `Phased` or `Original` for a student (`lcm_distill.diffusion`). Or a
                name of the command line, in `num_inference_steps`: `heun`, `euler`; `own`, `original`.
            latents: the initial noise, standard normal (B, C, H, W), which the sampler scales by its first sigma.
            generator: PyTorch's, or one for each prompt; draws all noise, step after step, instead of the seed.

        Returns:
            (B, 3, H, W), float32 in [0, 1], on the model's device.

        Raises:
            UserError: there is no prompt, or an empty one; a setting is out of range; or the sampler does not suit the
                model.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        ids = list(range(len(prompts)) if image_ids is None else image_ids)
        settings = self._settled(num_inference_steps, guidance_scale, seed, ids, sampler, latents, generator)
        check_prompts(prompts, ids)
        return self._images(self.encode(prompts), *settings)

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings of captions for `sample`: (B, L, C), float32, on the model's device.

        Raises:
            UserError: there is no prompt, or an empty one.
        """
        check_prompts(prompts, range(len(prompts)))
        return self.text_encoder.encode(prompts).to(self.device)

    @torch.inference_mode()
    def sample(
        self,
        captions: Tensor,
        num_inference_steps: int | None = None,
        guidance_scale: float | Literal["own"] | None = "own",
        seed: int | None = None,
    ) -> Tensor:
        """Images of captions that `encode` has embedded; arguments and results are those of `generate`."""
        ids = range(len(captions))
        return self._images(captions, *self._settled(num_inference_steps, guidance_scale, seed, ids))

    def _settled(
        self,
        steps: int | None,
        guidance: float | Literal["own"] | None,
        seed: int | None,
        ids: Sequence[int],
        sampler: Sampler | str | None = None,
        latents: Tensor | None = None,
        generator: Generators | None = None,
    ) -> tuple[float | None, Sampler, Noise]:
        """Guidance scale, sampler and noise of a batch."""
        scale = self.default_guidance if guidance == "own" else guidance
        check_settings(steps, scale, seed)
        noise = noise_source(self._latent_shape, ids, self.device, seed, latents, generator)
        return scale, self._chosen(steps, sampler), noise

    def _images(self, captions: Tensor, guidance: float | None, sampler: Sampler, noise: Noise) -> Tensor:
        return self.image_encoder.decode(sampler(self.denoiser(captions, guidance), noise))

    def sampler(self, steps: int | None = None) -> Sampler:
        """The model's own sampler of a number of steps, 1 or more; its default number if None.

        Raises:
            UserError: the model cannot be sampled from in so many steps.
        """
        raise NotImplementedError

    def denoiser(self, captions: Tensor, guidance: float | None) -> Denoiser:
        """The function that samplers call, for captions (B, L, C) and one guidance scale; None is no guidance."""
        raise NotImplementedError

    @property
    def _latent_shape(self) -> tuple[int, int, int]:
        return self.network.in_channels, self.network.latent_size, self.network.latent_size

    def named_sampler(self, name: str, steps: int | None = None) -> Sampler:
        """The sampler of a name of the command line; arguments and errors as `sampler`.

        Raises:
            UserError: no sampler of this model has the name.
        """
        raise NotImplementedError

    def _chosen(self, steps: int | None, sampler: Sampler | str | None) -> Sampler:
        if sampler is None:
            return self.sampler(steps)
        if isinstance(sampler, str):
            return self.named_sampler(sampler, steps)
        if steps not in (None, sampler.steps):
            raise UserError(
                f"num_inference_steps is {steps} and the sampler has {sampler.steps} steps: give one of them"
            )
        if not isinstance(sampler, self.samplers):
            names = " or ".join(kind.__name__ for kind in self.samplers)
            raise UserError(f"sampler {sampler.name} does not suit a {type(self).__name__}: give {names}")
        settings = self.diffusion
        require_falling(f"sampler {sampler.name}: sigmas", sampler.sigmas, settings.sigma_min, settings.sigma_max)
        return sampler


class LatentDiffusion(TextToImage):
    """A teacher: EDM's deterministic sampler (Heun, 30 steps by default) with classifier-free guidance."""

    samplers = (Heun, Euler)

    def sampler(self, steps: int | None = None) -> Heun:
        """See `TextToImage`."""
        settings = self.diffusion
        return Heun(30 if steps is None else steps, settings.sigma_min, settings.sigma_max, settings.rho)

    def named_sampler(self, name: str, steps: int | None = None) -> Sampler:
        """See `TextToImage`."""
        settings = self.diffusion
        kind = TEACHER_SAMPLERS[_known(name, TEACHER_SAMPLERS)]
        return kind(30 if steps is None else steps, settings.sigma_min, settings.sigma_max, settings.rho)

    def denoiser(self, captions: Tensor, guidance: float | None) -> Denoiser:
        """EDM's denoiser, with guidance unless the scale is 1."""
        return denoiser_at(self.network, self.diffusion.sigma_data, captions, 1 if guidance is None else guidance)


class LatentConsistencyModel(TextToImage):
    """A student: the multistep consistency sampler, or the phased one, with guidance as an input of the network.

    Attributes:
        sampling: sigmas by number of steps, trained guidance range and phases. Guidance outside the range warns.
    """

    samplers = (Consistency, Deterministic, Phased, Original)

    def __init__(
        self, network: MicroDiT, image_encoder: ImageEncoder, text_encoder: TextEncoder, sampling: StudentSampling
    ) -> None:
        super().__init__(network, image_encoder, text_encoder, sampling.diffusion)
        self.sampling = sampling
        self.default_guidance = sampling.default_guidance

    def sampler(self, steps: int | None = None) -> FewStepSampler:
        """See `TextToImage`; without sigmas of their own, steps take EDM's schedule."""
        return self.sampling.sampler(steps)

    def named_sampler(self, name: str, steps: int | None = None) -> FewStepSampler:
        """See `TextToImage`."""
        return self.sampling.sampler(steps, _known(name, STUDENT_SAMPLERS))

    def denoiser(self, captions: Tensor, guidance: float | None) -> Denoiser:
        """The consistency function."""
        settings = self.diffusion
        if guidance is None:
            return consistency_function(self.network, settings.sigma_data, settings.sigma_min, captions, None)
        trained = self.sampling.guidance_range
        if trained and not trained[0] <= guidance <= trained[1]:
            said = f"lies outside {trained[0]:g} to {trained[1]:g}, which this student was trained on"
            warnings.warn(f"guidance {guidance:g} {said}", stacklevel=3)
        elif not trained and guidance < 1:
            said = "is below 1, which is no guidance: this student's file does not record what it was trained on"
            warnings.warn(f"guidance {guidance:g} {said}", stacklevel=3)
        scales = torch.full((len(captions),), float(guidance), device=self.device)
        return consistency_function(self.network, settings.sigma_data, settings.sigma_min, captions, scales)


def _known(name: str, names: Iterable[Name]) -> Name:
    """A name that is one of `names`.

    Raises:
        UserError: it is not.
    """
    for known in names:
        if known == name:
            return known
    raise UserError(f"sampler {name!r} does not suit this model: give {' or '.join(names)}, or a sampler")
