"""What ships with the package: the weights of the `shapes` default, and the configuration of the SDXL VAE."""

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


def teacher(name: str) -> Path:
    """The checkpoint of a teacher that ships, by name, or the file of that path."""
    return TEACHERS.get(name) or Path(name)
