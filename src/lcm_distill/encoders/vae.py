# The types that diffusers declares do not describe what it returns.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportReturnType=false
# pyright: reportPrivateImportUsage=false, reportGeneralTypeIssues=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false
"""Loads a VAE from every common form, strictly: no weight may be missing, unexpected or of another shape.

A diffusers folder is a pipeline with its VAE in the subfolder `vae`, or a VAE itself; `fp16` weights are used if there
are no others. A file has the key names of diffusers or of the original code (LDM), and holds a VAE or a whole
checkpoint in which the VAE's names start with `first_stage_model.`.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

from lcm_distill import assets
from lcm_distill.core.errors import UserError, one_line
from lcm_distill.core.finite_weights import require_finite
from lcm_distill.core.library_messages import quiet_libraries
from lcm_distill.core.words import counted
from lcm_distill.encoders.initialisation import fixed_initialisation
from lcm_distill.encoders.ldm_files import ldm_share
from lcm_distill.encoders.vae_shapes import build_vae, empty_vae, require_all, require_fit

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
HALF_WEIGHTS = "diffusion_pytorch_model.fp16.safetensors"
STORED = (WEIGHTS, HALF_WEIGHTS, "diffusion_pytorch_model.bin")
"""Weight files of a folder, in the order in which they are taken."""
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"


def load_vae(name: str) -> "AutoencoderKL":
    """The VAE `name`, in float32: `shapes`, a folder, a file, or a repository on the Hugging Face Hub.

    Raises:
        UserError: it is missing, cannot be fetched, or its weights do not fit its configuration.
    """
    import diffusers  # noqa: F401  # pyright: ignore[reportUnusedImport]

    try:
        with quiet_libraries():
            vae = _load(name)
    except Exception as error:  # diffusers raises nearly anything on what is not its own
        raise _cannot_load(name, error) from error
    require_finite(vae.state_dict(), f"encoders.vae = {name!r}")
    return vae


def _load(name: str) -> "AutoencoderKL":
    path = _local(name)
    if path is None:
        subfolder = _hub_subfolder(name)
        empty_vae(_hub_config(name, subfolder))
        return _open(name, subfolder=subfolder)
    return _open_folder(path) if path.is_dir() else _open_file(path)


def vae_weights_file(name: str) -> Path | None:
    """The file with the weights of the VAE `name`; None where it is not on this machine.

    Raises:
        UserError: `name` can only be a path, and does not exist.
    """
    path = _path_of(name)
    if path is None:
        return _cached(name, STORED)
    folder = _config_folder(path)
    return path if path.is_file() else next((folder / file for file in STORED if (folder / file).is_file()), None)


def vae_config_file(name: str) -> Path | None:
    """The `config.json` of the VAE `name`; None where it is not on this machine.

    Raises:
        UserError: `name` can only be a path, and does not exist.
    """
    path = _path_of(name)
    return _cached(name, [CONFIG]) if path is None else _config_folder(path) / CONFIG


def _path_of(name: str) -> Path | None:
    """The file or folder that `name` is, if it is one.

    Raises:
        UserError: it can only be a path, and does not exist.
    """
    try:
        return _local(name)
    except OSError as error:
        raise _cannot_load(name, error) from error


def _cached(name: str, files: Iterable[str]) -> Path | None:
    """The first of some files of a hub repository, in its folder `vae` or itself, that is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(name, f"{folder}{file}") for folder in ("vae/", "") for file in files)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def random_vae(name: str) -> "AutoencoderKL":
    """The VAE `name` with reproducible random weights; a hub repository stands for SDXL's configuration.

    Raises:
        UserError: the folder or file is missing, or its configuration cannot be read.
    """
    try:
        path = _local(name)
        config = (assets.SDXL_VAE_CONFIG if path is None else _config_folder(path)) / CONFIG
        empty_vae(config)
        with fixed_initialisation():
            return build_vae(config)
    except Exception as error:  # as in `load_vae`
        raise _cannot_load(name, error) from error


def save_vae(name: str, folder: Path) -> None:
    """Write the VAE `name` into `folder`, in diffusers' layout and float32.

    Raises:
        UserError: as `load_vae`.
    """
    load_vae(name).save_pretrained(folder)


def _local(name: str) -> Path | None:
    """The file or folder that `name` refers to; None for a hub repository.

    Raises:
        FileNotFoundError: `name` can only be a path, and does not exist.
    """
    path = assets.VAE if name == "shapes" else Path(name)
    if path.exists():
        return path
    if path.suffix.lower() == ".safetensors" or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        raise FileNotFoundError("there is no such file or folder")
    return None


def _config_folder(path: Path) -> Path:
    """The folder with the `config.json` of a VAE; SDXL's for a file without one beside it."""
    if path.is_dir():
        return path / "vae" if (path / "vae").is_dir() else path
    return path.parent if (path.parent / CONFIG).is_file() else assets.SDXL_VAE_CONFIG


def _hub_subfolder(repository: str) -> str | None:
    """The subfolder of a repository's VAE: `vae`, or None where the repository itself is a VAE.

    Raises:
        OSError: the hub cannot be reached, and neither was fetched before.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for subfolder in ("vae", None):
        if isinstance(try_to_load_from_cache(repository, f"{subfolder}/{CONFIG}" if subfolder else CONFIG), str):
            return subfolder
    try:
        hf_hub_download(repository, f"vae/{CONFIG}")
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        return None
    return "vae"


def _hub_config(repository: str, subfolder: str | None) -> Path:
    """The `config.json` of a repository's VAE, fetched if need be."""
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repository, f"{subfolder}/{CONFIG}" if subfolder else CONFIG))


def _open_folder(folder: Path) -> "AutoencoderKL":
    folder = _config_folder(folder)
    require_fit(folder / CONFIG, next((folder / file for file in STORED if (folder / file).is_file()), None))
    only_half = (folder / HALF_WEIGHTS).is_file() and not (folder / WEIGHTS).is_file()
    return _open(folder, variant="fp16" if only_half else None)


def _open(where: str | Path, subfolder: str | None = None, variant: str | None = None) -> "AutoencoderKL":
    from diffusers import AutoencoderKL

    # low_cpu_mem_usage needs `accelerate`; torch_dtype converts weights stored in half precision.
    vae, found = AutoencoderKL.from_pretrained(
        where, subfolder=subfolder, variant=variant, torch_dtype=torch.float32, low_cpu_mem_usage=False,
        output_loading_info=True,
    )  # fmt: skip
    require_all(found["missing_keys"], found["unexpected_keys"])
    return vae


def _open_file(file: Path) -> "AutoencoderKL":
    if file.suffix.lower() != ".safetensors":
        raise ValueError("a single file must be a .safetensors")
    if not file.is_file():
        raise ValueError("it is no regular file")
    config = _config_folder(file) / CONFIG
    with safe_open(file, "pt") as content:
        names = list(content.keys())
    if any(name.startswith("encoder.down_blocks.") for name in names):
        require_fit(config, file)
        return _open_as_folder(file, config)
    return _open_ldm(file, config)


def _open_as_folder(file: Path, config: Path) -> "AutoencoderKL":
    """Open a file with diffusers' key names, including older ones, through a temporary diffusers folder."""
    with TemporaryDirectory() as folder:
        (Path(folder) / WEIGHTS).symlink_to(file.resolve())
        (Path(folder) / CONFIG).symlink_to(config.resolve())
        return _open(folder)


def _open_ldm(file: Path, config: Path) -> "AutoencoderKL":
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    vae = empty_vae(config)
    tensors = ldm_share(file)
    converted = convert_ldm_vae_checkpoint(tensors, vae.config)
    if len(converted) < len(tensors):
        others = counted(len(tensors) - len(converted), "weight is", "weights are")
        raise ValueError(f"{others} not part of a VAE of {config}")
    vae.load_state_dict({name: tensor.to("meta") for name, tensor in converted.items()})  # names and shapes alone
    vae = vae.to_empty(device="cpu")
    vae.load_state_dict(converted)
    return vae


def _cannot_load(name: str, error: Exception) -> UserError:
    repository = name if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) and not Path(name).exists() else SDXL
    folder = repository.split("/")[-1]
    return UserError(
        f"encoders.vae = {name!r} cannot be loaded ({one_line(error)}): run `hf download "
        f"{repository} --include 'vae/*' --local-dir {folder}` (without --include where the repository is "
        f"a VAE alone) on a machine with network, bring the folder here and set encoders.vae={folder}"
    )
