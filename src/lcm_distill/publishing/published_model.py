"""A trained model with everything that those who open it need to know."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from lcm_distill.config import DiffusionConfig, EncodersConfig, NetworkConfig
from lcm_distill.models.checkpoint_identity import tensors_sha256
from lcm_distill.models.student_description import StudentSampling


@dataclass(frozen=True)
class Published:
    """A teacher or student, and what it is opened with.

    Attributes:
        weights: by published name. description: as `models.checkpoint.serialise` takes it.
        sizes: of the network. encoders: that it was trained with.
        sampling: a student's; None for a teacher.
        diffusion: sigma_data, sigma_min, sigma_max and rho.
        guidance: the scale where none is given.
    """

    weights: Mapping[str, Tensor]
    description: Mapping[str, Any]
    sizes: NetworkConfig
    encoders: EncodersConfig
    diffusion: DiffusionConfig
    sampling: StudentSampling | None
    guidance: float

    @property
    def role(self) -> Literal["student", "teacher"]:
        """What the model is."""
        return "teacher" if self.sampling is None else "student"

    @cached_property
    def sha256(self) -> str:
        """Identity of the weights, as `models.checkpoint.checkpoint_sha256` gives it."""
        return tensors_sha256(self.weights)

    @property
    def vae_repository(self) -> str | None:
        """The VAE's repository on the Hugging Face Hub, if that is where it comes from."""
        name = self.encoders.vae
        return name if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) and not Path(name).exists() else None

    @property
    def text_encoder_repository(self) -> str | None:
        """The text encoder's repository on the Hugging Face Hub, if that is where it comes from."""
        _, found, name = self.encoders.text.partition("openclip:hf-hub:")
        return name if found else None
