"""Ranges of numbers in a configuration and in what a student records: far wider than any use, and never an overflow."""

from typing import Annotated

from pydantic import Field

MOST_GUIDANCE = 1_000
"""The highest guidance scale; those in use are below 20."""

MOST_STEPS = 10_000
"""The most steps of a sampler; those in use are below 1,000."""

Guidance = Annotated[float, Field(ge=0, le=MOST_GUIDANCE)]
"""A guidance scale."""
Steps = Annotated[int, Field(gt=0, le=MOST_STEPS)]
"""A sampler's number of steps."""
Sigma = Annotated[float, Field(ge=1e-6, le=1e6)]
"""A noise level, or the standard deviation of latents; its square is no overflow of float32, nor slow."""
LatentSize = Annotated[int, Field(gt=0, le=1_024)]
"""Height and width of latents: with the SDXL VAE up to 8,192 px."""
Channels = Annotated[int, Field(gt=0, le=65_536)]
"""Channels of latents, and the width of an embedding."""
