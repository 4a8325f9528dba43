"""The interface of all objectives of a student."""

from typing import NamedTuple, Protocol

from torch import Tensor

from lcm_distill.diffusion.preconditioning import Denoiser


class Networks(NamedTuple):
    """The networks of a distillation, each a function of (noisy (B, C, H, W), sigma (B,)).

    Attributes:
        student: the consistency function in training; the only one that receives gradients.
        target: the consistency function of the student's moving average, or `student` itself; called without gradient.
        teacher: a denoiser, with guidance or without; called without gradient.
    """

    student: Denoiser
    target: Denoiser
    teacher: Denoiser


class Objective(Protocol):
    """A loss of the student, with the traits that a training depends on."""

    @property
    def lowest_sigma(self) -> float:
        """Sigmas are drawn from here up to sigma_max."""
        ...

    @property
    def uses_target(self) -> bool:
        """Whether `Networks.target` is called, so that a moving average of the student is needed."""
        ...

    def __call__(self, networks: Networks, clean: Tensor, noise: Tensor, sigma: Tensor, progress: float) -> Tensor:
        """Losses of a batch.

        Args:
            clean, noise: (B, C, H, W); noise is standard normal.
            sigma: (B,), in [lowest_sigma, sigma_max].
            progress: share of the training that is done, in [0, 1).

        Returns:
            (B,), of clean's dtype.
        """
        ...
