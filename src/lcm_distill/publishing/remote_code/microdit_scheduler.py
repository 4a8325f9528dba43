# The types that diffusers declares do not describe its decorators.
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false, reportMissingTypeStubs=false
# pyright: reportPrivateImportUsage=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The samplers of MicroDiT as a diffusers scheduler: EDM's for teachers, and a student's own."""

from typing import Any, cast

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from lcm_distill.core.device import to_device
from lcm_distill.core.numbers import require_number
from lcm_distill.diffusion.noise import karras_sigmas
from lcm_distill.diffusion.preconditioning import Denoiser, jump_to
from lcm_distill.diffusion.samplers import consistency_step, euler_step, heun_step

LEAST_SIGMA = 1e-6
MOST_SIGMA = 1e6
"""Ends of the range of a noise level, whose square is no overflow of float32."""
MOST_STEPS = 1_000_000
"""Steps of one sampling; far more than any is worth."""


def require_sigmas(sigmas: Any) -> None:
    """Check a student's own sigmas, as a configuration file has them.

    Raises:
        ValueError: they are not so many falling noise levels for each number of steps.
    """
    for steps, falling in sigmas.items() if isinstance(sigmas, dict) else [] if sigmas is None else [("", None)]:
        if not isinstance(falling, list | tuple) or str(len(falling)) != str(steps):
            raise ValueError(f"sigmas in scheduler_config.json are {sigmas!r:.60}: they must be lists by their lengths")
        for sigma in falling:
            require_number(f"sigmas.{steps} in scheduler_config.json", sigma, LEAST_SIGMA, MOST_SIGMA)


class MicroDiTScheduler(SchedulerMixin, ConfigMixin):
    """Steps through falling sigmas.

    Args:
        sampler: `heun`, EDM's deterministic sampler (arXiv 2206.00364); `consistency`, which denoises and adds fresh
            noise (arXiv 2303.01469); `deterministic`, which denoises and keeps what it takes for the noise; or
            `phased`, the same from edge to edge of a student's phases (arXiv 2405.18407).
        default_steps: number of steps where none is given.
        sigmas: a student's own sigmas, falling, by number of steps.
        sigma_data, sigma_min, sigma_max, rho: of EDM's preconditioning and schedule.

    Attributes:
        sigmas: where the steps begin, and where the last one ends, float64 (steps + 1,).
        timesteps: `sigmas` without the last.
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        sampler: str = "consistency",
        default_steps: int = 4,
        sigmas: dict[str, list[float]] | None = None,
        sigma_data: float = 0.9,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
    ) -> None:
        numbers = {"sigma_data": sigma_data, "sigma_min": sigma_min, "sigma_max": sigma_max, "rho": rho}
        for name, value in numbers.items():
            require_number(f"{name} in scheduler_config.json", value, LEAST_SIGMA, MOST_SIGMA)
        require_sigmas(sigmas)
        self.set_timesteps(default_steps)

    def set_timesteps(self, num_inference_steps: int | None = None, device: str | torch.device = "cpu") -> None:
        """Choose the sigmas of a number of steps, `default_steps` if None.

        A student without sigmas of its own for that number takes EDM's schedule.

        Raises:
            ValueError: the number is below 1, or not that of a student's phases.
        """
        settings = cast(Any, self.config)
        steps = settings.default_steps if num_inference_steps is None else num_inference_steps
        require_number("num_inference_steps", steps, 1, MOST_STEPS, whole=True)
        own = (settings.sigmas or {}).get(str(steps))
        if settings.sampler == "phased" and own is None:
            raise ValueError(f"num_inference_steps is {steps}: it must be {settings.default_steps}")
        schedule = (settings.sigma_min, settings.sigma_max, settings.rho)
        if settings.sampler == "heun":
            sigmas = karras_sigmas(steps, *schedule)
        else:
            starts = own or karras_sigmas(steps + 1, *schedule)[:steps].tolist()
            sigmas = torch.tensor([*starts, settings.sigma_min], dtype=torch.float64)
        self.sigmas = to_device(sigmas, torch.device(device))
        self.timesteps, self.num_inference_steps = self.sigmas[:-1], steps

    @property
    def init_noise_sigma(self) -> Tensor:
        """What the noise is multiplied by before the first step."""
        return self.sigmas[0]

    def step(self, function: Denoiser, index: int, sample: Tensor, noise: Tensor | None = None) -> Tensor:
        """The sample after one step.

        Args:
            function: maps (noisy (B, C, H, W), sigma (1,)) to the clean sample: EDM's denoiser for `heun`, a
                consistency function for a student.
            index: of the step, from 0.
            sample: (B, C, H, W); noisy at the step's sigma, or, after the first step of `consistency`, clean.
            noise: standard normal (B, C, H, W), what a step that `adds_noise` adds.
        """
        settings = cast(Any, self.config)
        sigma, following = self.sigmas[index : index + 1], self.sigmas[index + 1 : index + 2]
        if settings.sampler == "heun":
            last = index + 1 == self.num_inference_steps
            return (euler_step if last else heun_step)(function, sample, sigma, following)
        if settings.sampler != "consistency":
            return jump_to(function, sample, sigma, following, settings.sigma_min)
        if noise is None:
            return function(sample, sigma)
        return consistency_step(function, sample, sigma, settings.sigma_min, noise)

    def adds_noise(self, index: int) -> bool:
        """Whether a step begins by adding fresh noise."""
        settings = cast(Any, self.config)
        return settings.sampler == "consistency" and index > 0
