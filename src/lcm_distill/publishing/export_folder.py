"""What an export needs: libraries, and a folder of which nothing is lost that no earlier export wrote."""

from importlib.util import find_spec
from pathlib import Path

from lcm_distill.core.errors import UserError
from lcm_distill.core.json import parse_json
from lcm_distill.models.checkpoint_description import METADATA
from lcm_distill.models.weight_files import file_metadata
from lcm_distill.models.weight_shards import INDEX_FILE
from lcm_distill.pipeline.atomic_writes import TEMPORARY

CARD = {"README.md", "grid.png"}
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
DIFFUSERS = {
    "model_index.json", "modular_config.json", "modular_model_index.json", "pipeline.py", "block.py", "transformer",
    "scheduler", "tokenizer", "text_encoder", "vae",
}  # fmt: skip
"""What a folder for diffusers holds, beside its card."""
SETTINGS = "sampling.json"
GRAPHS = {SETTINGS, "tokenizer.json"} | {
    f"{name}.onnx{data}" for name in ("text_encoder", "student", "decoder") for data in ("", ".data")
}
"""What a folder for ONNX Runtime holds, beside its card."""


def require_place(folder: Path) -> None:
    """Check that an export may take a folder's place: there is none, it is empty, or an earlier export's.

    Raises:
        UserError: it holds anything else, is a file, or the working directory, which cannot be replaced.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file: give --out a folder")
    found = {path.name for path in folder.iterdir() if not path.name.startswith(TEMPORARY)}
    earlier = _of_shards(folder) | (DIFFUSERS if _is_ours(folder / WEIGHTS) else set[str]())
    earlier |= GRAPHS if _is_for_onnx(folder / SETTINGS) else set[str]()
    if others := sorted(found - (earlier | CARD if earlier else earlier)):
        raise UserError(
            f"{folder} holds {others[0]}, which no earlier export wrote: give --out a folder that is empty or not there"
        )
    if folder.resolve() == Path.cwd():
        raise UserError(f"{folder} is the working directory: give --out the name of a folder in it")


def require_onnx() -> None:
    """Refuse to begin where what writes and runs graphs is not installed.

    Raises:
        UserError: it is not.
    """
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise UserError(f"--format onnx needs {missing[0]}: pip install 'lcm-distill[onnx]'")


def _of_shards(folder: Path) -> set[str]:
    """The index and the shards that it names, of an export in several files."""
    index = folder / INDEX_FILE
    if not _is_ours(index):
        return set()
    try:
        return {INDEX_FILE, *map(str, parse_json(index.read_bytes())["weight_map"].values())}
    except (ValueError, KeyError, TypeError, AttributeError):
        return set()


def _is_for_onnx(settings: Path) -> bool:
    try:
        return "student_sha256" in parse_json(settings.read_bytes())
    except (OSError, ValueError, TypeError):
        return False


def _is_ours(weights: Path) -> bool:
    try:
        return weights.is_file() and METADATA in file_metadata(weights)
    except UserError:
        return False
