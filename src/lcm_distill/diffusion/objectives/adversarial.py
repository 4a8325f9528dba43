"""Hinge losses of a discriminator and of the student that it judges (arXiv 1705.02894).

Unlike all other terms these compare the student with data, so that it can pass its teacher.
"""

from torch import Tensor
from torch.nn.functional import relu


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss (B,): 2 for one that cannot tell, 0 for logits beyond a margin of 1.

    Args:
        real, fake: logits (B, N) for data and for generated samples.
    """
    return relu(1 - real).mean(dim=1) + relu(1 + fake).mean(dim=1)


def generator_loss(fake: Tensor) -> Tensor:
    """The student's loss (B,) from the logits (B, N) of its samples, which shall be taken for data."""
    return -fake.mean(dim=1)


def with_gradient(losses: Tensor, samples: Tensor, gradient: Tensor) -> Tensor:
    """`losses` (B,) as a function of `samples` (B, C, H, W) alone, with this gradient of the same shape."""
    change = (samples - samples.detach()) * gradient.detach()  # zero
    return losses.detach() + change.sum(dim=(1, 2, 3))
