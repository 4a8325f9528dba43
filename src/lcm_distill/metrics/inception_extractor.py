# torchvision ships no types, and those of its constructor allow no subclasses with other signatures.
# pyright: reportMissingTypeStubs=false, reportArgumentType=false
"""Inception v3 of 2015 as FID knows it: torchvision's modules, with pooling as TensorFlow's graph has it.

The layout is that of `pt_inception-2015-12-05-6726825d.pth`, which pytorch-fid, torch-fidelity and
text2image-benchmark share.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import inception as parts

from lcm_distill.core.errors import UserError, one_line
from lcm_distill.core.hashing import file_sha256
from lcm_distill.metrics.weights import PublishedWeights

INCEPTION_2015 = PublishedWeights(
    ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth"),
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "the releases of pytorch-fid (or of torch-fidelity, where it is called weights-inception-...)",
)


def _average(x: Tensor) -> Tensor:
    """TensorFlow's average pooling: what lies beyond the border does not count."""
    return functional.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)


def _maximum(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, kernel_size=3, stride=1, padding=1)


def _through(x: Tensor, *modules: nn.Module) -> Tensor:
    for module in modules:
        x = module(x)
    return x


class _BlockA(parts.InceptionA):
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [
            self.branch1x1(x),
            _through(x, self.branch5x5_1, self.branch5x5_2),
            _through(x, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3),
            self.branch_pool(_average(x)),
        ]


class _BlockC(parts.InceptionC):
    def _forward(self, x: Tensor) -> list[Tensor]:
        double = (self.branch7x7dbl_1, self.branch7x7dbl_2, self.branch7x7dbl_3, self.branch7x7dbl_4)
        return [
            self.branch1x1(x),
            _through(x, self.branch7x7_1, self.branch7x7_2, self.branch7x7_3),
            _through(x, *double, self.branch7x7dbl_5),
            self.branch_pool(_average(x)),
        ]


class _BlockE(parts.InceptionE):
    pool: Callable[[Tensor], Tensor] = staticmethod(_average)

    def _forward(self, x: Tensor) -> list[Tensor]:
        single, double = self.branch3x3_1(x), _through(x, self.branch3x3dbl_1, self.branch3x3dbl_2)
        return [
            self.branch1x1(x),
            torch.cat([self.branch3x3_2a(single), self.branch3x3_2b(single)], 1),
            torch.cat([self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)], 1),
            self.branch_pool(self.pool(x)),
        ]


def build_inception() -> parts.Inception3:
    """The network without weights, on the meta device: images (B, 3, 299, 299) in [-1, 1] to logits (B, 1008)."""
    blocks = [
        parts.BasicConv2d, _BlockA, parts.InceptionB, _BlockC, parts.InceptionD, _BlockE, parts.InceptionAux,
    ]  # fmt: skip
    with torch.device("meta"):
        network = parts.Inception3(num_classes=1008, aux_logits=False, init_weights=False, inception_blocks=blocks)
    # The graph takes the maximum in its last block alone.
    network.Mixed_7c.pool = _maximum
    return network


def load_inception(path: Path) -> nn.Module:
    """Images (B, 3, 299, 299) in [-1, 1] to pooled features (B, 2048).

    Raises:
        UserError: the file is not a state dict of this network.
    """
    network = build_inception()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), assign=True)
    except Exception as error:  # PyTorch raises nearly anything on what is not its own
        raise UserError(f"{path} holds no Inception in pytorch-fid's layout: {one_line(error)}") from error
    network.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    return network.eval().requires_grad_(False)


class InceptionExtractor:
    """The 2,048 pooled features.

    Args:
        path: a state dict in pytorch-fid's layout.
        centre: images enter the network as x / centre - 1: 127.5, or 128 in TensorFlow's graph.
    """

    name = "inception-2015-12-05"
    width = 2048

    def __init__(self, path: Path, device: torch.device, centre: float) -> None:
        self.network, self.device, self.centre = load_inception(path).to(device), device, centre
        self.sha256 = file_sha256(path)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Features float32 (B, 2048) of images (B, 3, 299, 299), values 0 to 255."""
        return self.network(images.to(self.device).float() / self.centre - 1).cpu()
