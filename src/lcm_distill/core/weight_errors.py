"""What is wrong with a checkpoint that is not what it should be, in words, and its error."""

from pathlib import Path

from lcm_distill.core.errors import DataError

AGAIN = "copy or download it again, or run the command that trained it again, which publishes it again"

INCOMPLETE = "it is damaged or incomplete"


def begins_otherwise(first: bytes) -> str:
    """What a file is not that begins with these bytes."""
    return f"it begins with {first!r} and is neither PyTorch's nor a safetensors file"


def cannot_read(path: Path, error: Exception | str) -> DataError:
    """The error of a checkpoint that is not what it should be."""
    return DataError(f"checkpoint {path} cannot be read ({' '.join(str(error).split())[:200]}): {AGAIN}")
