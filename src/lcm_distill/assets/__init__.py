"""What ships with the package: the weights of the `shapes` default, configuration of the SDXL VAE, tested releases."""

from pathlib import Path

SHAPES = Path(__file__).parent / "shapes"
VAE = SHAPES / "vae"
TEXT_ENCODER = SHAPES / "text_encoder"
FEATURES = SHAPES / "features" / "model.safetensors"
TEACHER = SHAPES / "teacher" / "model.safetensors"
TEACHERS = {"shapes": TEACHER}
"""By the names that configuration gives them."""
STUDENT = SHAPES / "student" / "model.safetensors"
SDXL_VAE_CONFIG = Path(__file__).parent / "sdxl_vae"
TESTED_RELEASES = Path(__file__).parent / "tested_releases.txt"
"""Those lines of constraints.txt that are about what the package requires, as a test checks."""


def teacher(name: str) -> Path:
    """The checkpoint of a teacher that ships, by name, or the file of that path."""
    return TEACHERS.get(name) or Path(name)
