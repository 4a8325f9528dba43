"""The feature network of the `shapes` default: a small classifier of what an image shows, with its features.

A stand-in for Inception on images that Inception was not trained on; its distances compare with each other only.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from lcm_distill.core.errors import UserError, one_line
from lcm_distill.core.hashing import file_sha256
from lcm_distill.shapes.captions import caption_hits, labels_of


class ShapesNetwork(nn.Module):
    """Convolutions, a feature layer 128 wide and one linear classifier for each attribute.

    Args:
        classes: number of values of each attribute, by name.
    """

    FEATURES = 128

    def __init__(self, classes: Mapping[str, int]) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            _convolution(3, 24, 2), _convolution(24, 48, 2), _convolution(48, 64, 1),
            _convolution(64, 64, 2), _convolution(64, 64, 1), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
            nn.Linear(64 * 16, self.FEATURES), nn.LayerNorm(self.FEATURES), nn.GELU(),
        )  # fmt: skip
        self.heads = nn.ModuleDict({name: nn.Linear(self.FEATURES, count) for name, count in classes.items()})

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Images (B, 3, 64, 64) in [0, 1] to features (B, 128) and logits (B, values) by attribute."""
        features = self.trunk(images * 2 - 1)
        return features, {name: head(features) for name, head in self.heads.items()}


def load_shapes_network(path: Path) -> ShapesNetwork:
    """The network of a safetensors file, in float32 on the CPU; its classes follow from the shapes of the heads.

    Raises:
        UserError: the file is missing or holds no such network.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: put weights of the feature network of `shapes` there")
    try:
        network = _network_of(path)
    except Exception as error:  # safetensors and PyTorch raise nearly anything on what is not theirs
        raise UserError(f"{path} holds no feature network of `shapes`: {one_line(error)}") from error
    return network.eval().requires_grad_(False)


def _network_of(path: Path) -> ShapesNetwork:
    from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

    tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    heads = [name.split(".")[1] for name in tensors if name.startswith("heads.") and name.endswith(".weight")]
    network = ShapesNetwork({name: len(tensors[f"heads.{name}.bias"]) for name in heads})
    network.load_state_dict(tensors)
    return network


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.GroupNorm(8, outputs), nn.GELU())


class ShapesExtractor:
    """The network as a feature extractor and a scorer of captions.

    Args:
        path: weights in safetensors form.
    """

    name = "shapes"
    width = ShapesNetwork.FEATURES

    def __init__(self, path: Path, device: torch.device) -> None:
        self.network, self.device = load_shapes_network(path).to(device), device
        self.sha256 = file_sha256(path)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Features float32 (B, 128) of images (B, 3, 64, 64), values 0 to 255."""
        return self.network(images.to(self.device).float() / 255)[0].cpu()

    @torch.inference_mode()
    def caption_scores(self, features: Tensor, captions: Sequence[str]) -> Tensor:
        """1 where an image with these features (B, 128) shows shape and colour as its caption names them, else 0.

        Returns:
            float64 (B,), on the CPU.
        """
        features = features.to(self.device)
        logits = {name: head(features).cpu() for name, head in self.network.heads.items()}
        return caption_hits(logits, [labels_of(caption) for caption in captions]).double()
