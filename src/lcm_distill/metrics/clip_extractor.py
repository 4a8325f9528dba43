# open_clip ships no type stubs, and the types that it declares do not describe what it returns.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false
# pyright: reportCallIssue=false, reportArgumentType=false, reportPrivateImportUsage=false, reportAttributeAccessIssue=false
# pyright: reportOptionalSubscript=false, reportMissingTypeStubs=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""CLIP features of images and captions, for CLIP score and CMMD."""

from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional

from lcm_distill.core.errors import UserError, one_line
from lcm_distill.core.hashing import file_sha256
from lcm_distill.core.library_messages import quiet_libraries

WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Names the hub's open_clip repositories give their weights."""
CAPTIONS_A_BATCH = 256


class ClipExtractor:
    """Features of images and captions, in one space.

    Args:
        architecture: open_clip's name of the model. path: its weights in open_clip's layout.

    Raises:
        UserError: the file is not this model's.
    """

    def __init__(self, architecture: str, path: Path, device: torch.device) -> None:
        try:
            _require_readable(path)
            with quiet_libraries():
                model = open_clip.create_model(architecture, pretrained=str(path))
        except Exception as error:  # open_clip raises nearly anything on what is not its own
            raise UserError(f"{path} holds no {architecture} in open_clip's layout: {one_line(error)}") from error
        self.model, self.device = model.eval().requires_grad_(False).to(device), device
        self.tokenizer = open_clip.get_tokenizer(architecture)
        self.name, self.sha256 = f"clip:{architecture}", file_sha256(path)
        self.width = int(open_clip.get_model_config(architecture)["embed_dim"])
        self._mean, self._std = (
            255 * torch.tensor(values, device=device).view(3, 1, 1)
            for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
        )

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Features float32 (B, width), not normalised, of images (B, 3, H, W) of the model's size, 0 to 255."""
        return self.model.encode_image((images.to(self.device).float() - self._mean) / self._std).float().cpu()

    @torch.inference_mode()
    def caption_features(self, captions: Sequence[str]) -> Tensor:
        """Features float32 (B, width), not normalised, of captions; tokens beyond the model's context are cut."""
        tokens = self.tokenizer(list(captions)).split(CAPTIONS_A_BATCH)
        return torch.cat([self.model.encode_text(part.to(self.device)).float().cpu() for part in tokens])

    def caption_scores(self, features: Tensor, captions: Sequence[str]) -> Tensor:
        """Cosines float64 (B,), on the CPU, of images' features (B, width) and their captions' features."""
        return functional.cosine_similarity(features.double(), self.caption_features(captions).double(), dim=1)


def _require_readable(path: Path) -> None:
    """Read what tells a damaged file from a whole one, before a network of up to billions of weights is built.

    Raises:
        SafetensorError: the file is damaged.
    """
    if path.suffix == ".safetensors":
        with safe_open(path, "pt"):
            pass


def find_clip(architecture: str, tag: str, where: str | Path | None) -> Path:
    """Weights at `where`, or in that folder; unset, open_clip's own called `tag`, fetched if need be.

    Raises:
        UserError: they are not there, nor can they be fetched.
    """
    if where is None:
        try:
            with quiet_libraries():
                return Path(download_pretrained(get_pretrained_cfg(architecture, tag)))
        except Exception as error:  # of the hub's client or the network
            raise UserError(
                f"{architecture} ({tag}) is neither in the hub's cache nor can it be fetched ({one_line(error)}): "
                f"fetch {WEIGHTS[0]} elsewhere and say where it lies"
            ) from error
    folder = Path(where)
    candidates = [folder] if folder.is_file() else [folder / name for name in WEIGHTS]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise UserError(f"{folder} holds no {' or '.join(WEIGHTS)}: put {architecture} ({tag}) there")
    return found
