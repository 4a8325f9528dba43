"""Continuous-time consistency distillation: sCM (arXiv 2410.11081), for a network in EDM's preconditioning.

The paper works with TrigFlow: x_t = cos(t) x_0 + sin(t) z with z ~ N(0, sigma_data^2), t in [0, pi/2], and the
consistency function f = cos(t) x_t - sin(t) sigma_data F(x_t / sigma_data, t) (its eq. 5). EDM's sample is
x = x_0 + sigma e with e ~ N(0, 1). The change of variables between them is exact:

    (1)  sigma = sigma_data tan(t),  x_t = cos(t) x,  z = sigma_data e
    (2)  cos(t) = sigma_data / sqrt(sigma^2 + sigma_data^2),  sin(t) = sigma / sqrt(sigma^2 + sigma_data^2)

so x_t / sigma_data is EDM's c_in x, cos(t)^2 its c_skip, sigma_data sin(t) its c_out, and F its network with the
sign changed: f is the same function of the same network. From (1), d/dt = (dsigma/dt) d/dsigma with
dsigma/dt = sigma_data / cos(t)^2, hence

    (3)  sin(t) cos(t) d/dt = sigma d/dsigma

and along the probability-flow ODE dx/dsigma = (x - D) / sigma, D the teacher's denoiser. One Jacobian-vector product
in the direction (x - D, sigma) gives sigma df/dsigma. In this direction c_noise = ln(sigma) / 4 changes at the rate
1/4 whatever sigma: nothing blows up at either end, which is what the paper rearranges its product for.

The tangent is cos(t) df/dt, whose two parts are (its eq. 6, with dx_t/dt of the teacher)

    (4)  -cos(t)^2 (sigma_data F - dx_t/dt)  and  -r cos(t) sin(t) (x_t + sigma_data dF/dt)

with r rising from 0 to 1 over the warm-up. From D = cos(t) x_t - sin(t) dx_t/dt the first is cos(t)^2 (f - D) / sin(t),
and by (3) their sum at r = 1 is (sigma df/dsigma) / sin(t). So for every r

    (5)  g = ((1 - r) cos(t)^2 (f - D) + r sigma df/dsigma) / sin(t)

which needs f, its derivative and the teacher, and no access to F. At r = 0 the student is trained to be its teacher's
denoiser, at r = 1 to be constant along the teacher's trajectories. The consistency function of this package is the
identity at sigma_min in place of 0; (5) holds for it as it stands, being the total derivative of whatever f is.
"""

import warnings
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.func import jvp  # pyright: ignore[reportUnknownVariableType]
from torch.nn.attention import SDPBackend, sdpa_kernel

from lcm_distill.diffusion.objectives.interface import Networks
from lcm_distill.diffusion.preconditioning import Denoiser


@dataclass(frozen=True)
class ContinuousTime:
    """sCM with tangent normalisation and tangent warm-up, without the learnt weighting.

    Attributes:
        sigma_data, sigma_min: of EDM's preconditioning and of the boundary.
        normalisation: c of g / (|g| + c).
        tangent_warmup: share of the training over which r rises from 0 to 1, in [0, 1].
    """

    sigma_data: float
    sigma_min: float
    normalisation: float
    tangent_warmup: float
    uses_target = False

    @property
    def lowest_sigma(self) -> float:
        """The boundary itself."""
        return self.sigma_min

    def __call__(self, networks: Networks, clean: Tensor, noise: Tensor, sigma: Tensor, progress: float) -> Tensor:
        """Losses (B,) in the output of F, as in the paper's eq. 8; see `Objective`.

        The value is the mean square of the normalised tangent; the difference that carries the gradient is zero.
        """
        noisy = clean + sigma.view(-1, 1, 1, 1) * noise
        tangent = self.normalise(self.tangent(networks, noisy, sigma, progress))
        predicted = networks.student(noisy, sigma)
        # c_out = sigma_data sin(t) turns a difference of f into one of F.
        out = self.sigma_data * _sine(sigma, self.sigma_data)
        return ((predicted - predicted.detach()) / out + tangent).square().mean(dim=(1, 2, 3))

    def tangent(self, networks: Networks, noisy: Tensor, sigma: Tensor, progress: float) -> Tensor:
        """The tangent g of (5), (B, C, H, W), without gradient, for noisy (B, C, H, W) at sigma (B,)."""
        with torch.no_grad():
            denoised = networks.teacher(noisy, sigma)
        predicted, derivative = value_and_derivative(networks.student, noisy, sigma, noisy - denoised, sigma)
        share = min(1.0, progress / self.tangent_warmup) if self.tangent_warmup else 1.0
        sine = _sine(sigma, self.sigma_data)
        return ((1 - share) * (1 - sine**2) * (predicted - denoised) + share * derivative) / sine

    def normalise(self, tangent: Tensor) -> Tensor:
        """Normalised, g / (|g| + c), (B, C, H, W), with |g| the root mean square of each sample."""
        size = tangent.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return tangent / (size + self.normalisation)


def _sine(sigma: Tensor, sigma_data: float) -> Tensor:
    """sin(t) of (2), (B, 1, 1, 1)."""
    return (sigma / (sigma**2 + sigma_data**2).sqrt()).view(-1, 1, 1, 1)


def value_and_derivative(
    function: Denoiser, x: Tensor, sigma: Tensor, x_rate: Tensor, sigma_rate: Tensor
) -> tuple[Tensor, Tensor]:
    """A function of (x, sigma) and its Jacobian-vector product in the direction (x_rate, sigma_rate), without gradient.

    Forward-mode differentiation costs about two evaluations. Expert-choice routing is piecewise constant in its input:
    the derivative is that of the network with every expert's tokens fixed.

    Args:
        function: (B, C, H, W), (B,) -> (B, C, H, W).
        x, x_rate: (B, C, H, W). sigma, sigma_rate: (B,).

    Returns:
        Value and derivative, each (B, C, H, W).
    """
    # Fused attention has no forward-mode derivative. PyTorch warns of torch.jit.script when it loads its derivatives.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*torch\.jit\.script", FutureWarning)
        warnings.filterwarnings("ignore", r".*torch\.jit\.script", DeprecationWarning)
        return cast(tuple[Tensor, Tensor], jvp(function, (x, sigma), (x_rate, sigma_rate)))
