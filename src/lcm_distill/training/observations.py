"""What a training sees of its own health in a step, as sums on the device that are read with the step's losses."""

import torch
from torch import Tensor

from lcm_distill.diffusion.preconditioning import Denoiser


class Observations:
    """Sums over the samples of a step's passes, by name. Nothing is waited for, and no gradient changes.

    `health_figures` makes figures of them. Every rank adds to the same names in the same order.

    Args:
        device: where the sums are.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self._sums = device, dict[str, Tensor]()

    def add(self, name: str, value: Tensor) -> None:
        """Add a scalar, without its gradient."""
        self._sum(name).add_(value.detach())

    def gradient(self, term: str, output: Tensor) -> Tensor:
        """The student's output as one term of the loss sees it.

        The squared norm of that term's gradient in it is added to `TERM_gradient` when the backward pass comes by.
        """
        if not output.requires_grad:
            return output
        square, seen = self._sum(f"{term}_gradient"), output.view_as(output)

        def observe(gradient: Tensor) -> None:
            square.add_(gradient.square().sum())

        seen.register_hook(observe)  # pyright: ignore[reportUnknownMemberType]
        return seen

    def function(self, term: str, student: Denoiser) -> Denoiser:
        """A function of the student whose outputs are seen as `gradient` has it."""
        return lambda x, sigma: self.gradient(term, student(x, sigma))

    def spread(self, name: str, samples: Tensor) -> None:
        """Add the squared distances of a pass's samples (B, C, H, W) from their mean; a single one has none."""
        self.add(name, len(samples) * samples.detach().var(dim=0, correction=0).sum())

    def take(self) -> dict[str, Tensor]:
        """The sums since the last call, scalars float32."""
        taken, self._sums = self._sums, {}
        return taken

    def _sum(self, name: str) -> Tensor:
        if name not in self._sums:
            self._sums[name] = torch.zeros((), device=self.device)
        return self._sums[name]
