# The types that transformers declares do not describe what it returns.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false
# pyright: reportAttributeAccessIssue=false, reportPrivateImportUsage=false, reportArgumentType=false
# pyright: reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""DINOv2's view of images, for FD-DINOv2 (arXiv 2306.04675)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter, functional
from transformers import Dinov2Config, Dinov2Model
from transformers.utils import cached_file

from lcm_distill.core.errors import UserError, one_line
from lcm_distill.core.hashing import file_sha256
from lcm_distill.core.library_messages import quiet_libraries
from lcm_distill.core.numbers import require_sizes
from lcm_distill.encoders.foreign_networks import read_config, require_few_parameters

DINOV2_LARGE = "facebook/dinov2-large"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
REMEDY = f"put {CONFIG} and {WEIGHTS} of {DINOV2_LARGE} into a folder and say where it lies"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = 224
SIZES = {
    "num_hidden_layers": (1, 128),
    "hidden_size": (1, 16_384),
    "num_attention_heads": (1, 1_024),
    "mlp_ratio": (1, 32),
    "image_size": (1, 4_096),
    "patch_size": (1, SIZE),
    "num_channels": (3, 3),
}
"""Whole numbers of a configuration, and the range of each; far wider than those in use."""
OFFSET = 0.1
"""What the published code adds to the number of patches when it resizes its table of positions, unlike transformers."""


class Dinov2Extractor:
    """The class token after the last norm.

    Args:
        where: a folder that transformers reads, or a name on the hub.

    Raises:
        UserError: it is neither there nor can it be fetched, or it is no DINOv2.
    """

    def __init__(self, where: str, device: torch.device) -> None:
        path, model = _load(where)
        model.embeddings.position_embeddings = Parameter(
            resized_positions(model.embeddings.position_embeddings, SIZE // model.config.patch_size)
        )
        self.model, self.device = model.eval().requires_grad_(False).to(device), device
        self.name, self.sha256 = f"dinov2:{Path(where).name}", file_sha256(path)
        self.width = int(model.config.hidden_size)
        self._mean, self._std = (255 * torch.tensor(values, device=device).view(3, 1, 1) for values in (MEAN, STD))

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Features float32 (B, width) of images (B, 3, 224, 224), values 0 to 255."""
        normalised = (images.to(self.device).float() - self._mean) / self._std
        return self.model(normalised).pooler_output.float().cpu()


def resized_positions(table: Tensor, side: int) -> Tensor:
    """A table of positions (1, 1 + n * n, D) for side x side patches, as the published code resizes it."""
    length = round((table.shape[1] - 1) ** 0.5)
    if length == side:
        return table
    grid = table[:, 1:].unflatten(1, (length, length)).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, scale_factor=(side + OFFSET) / length, mode="bicubic")
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


def _load(where: str) -> tuple[Path, Dinov2Model]:
    path, config = _find(where, WEIGHTS), _find(where, CONFIG)
    try:
        with quiet_libraries():
            _require_sizes(read_config(config))
            model, info = Dinov2Model.from_pretrained(where, output_loading_info=True)
    except Exception as error:  # transformers and safetensors raise nearly anything on what is not theirs
        raise UserError(f"{path} holds no DINOv2 ({one_line(error)}): {REMEDY}") from error
    if missing := sorted(info["missing_keys"]):
        raise UserError(f"{path} is no whole DINOv2: it lacks {missing[0]} and {len(missing) - 1} more tensors")
    return path, model


def _require_sizes(config: dict[str, Any]) -> None:
    """Check the sizes of a network before transformers builds it.

    Raises:
        ValueError: they are not those of a DINOv2.
    """
    require_sizes(config, SIZES)
    with torch.device("meta"):
        require_few_parameters(Dinov2Model(Dinov2Config(**config)))


def _find(where: str, file: str) -> Path:
    try:
        with quiet_libraries():
            return Path(str(cached_file(where, file)))
    except Exception as error:  # of the hub's client or the network
        raise UserError(
            f"DINOv2 {where!r} is neither here nor can it be fetched ({one_line(error)}): {REMEDY}"
        ) from error
