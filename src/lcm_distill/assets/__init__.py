"""Weights that ship with the package: the stand-in encoders, teacher and student of the `shapes` default."""

from pathlib import Path

SHAPES = Path(__file__).parent / "shapes"
VAE = SHAPES / "vae"
TEXT_ENCODER = SHAPES / "text_encoder"
FEATURES = SHAPES / "features" / "model.safetensors"
TEACHER = SHAPES / "teacher" / "model.safetensors"
STUDENT = SHAPES / "student" / "model.safetensors"
