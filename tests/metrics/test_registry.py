"""The registry: what protocols say of themselves, and what importing it costs."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from lcm_distill.core.errors import UserError
from lcm_distill.metrics.neighbours import coverage, density, precision, recall
from lcm_distill.metrics.registry import PROTOCOLS, find_protocol, open_protocol, register_protocol
from lcm_distill.shapes.network import ShapesExtractor

NAMES = [
    "shapes", "t2i-benchmark", "gigagan", "torch-fidelity", "pytorch-fid", "fd-dinov2", "cmmd", "clip-vit-b-32",
    "clip-vit-g-14",
]  # fmt: skip
INCEPTION = ["t2i-benchmark", "gigagan", "torch-fidelity", "pytorch-fid"]


def names_where(trait) -> list[str]:
    return [name for name, protocol in PROTOCOLS.items() if trait(protocol)]


def test_protocols_are_listed_in_a_fixed_order():
    assert list(PROTOCOLS) == NAMES
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())


def test_traits():
    assert names_where(lambda protocol: protocol.allows_few) == ["shapes"]
    assert names_where(lambda protocol: protocol.scores_captions) == ["shapes", "clip-vit-b-32", "clip-vit-g-14"]
    assert names_where(lambda protocol: not protocol.compares) == ["clip-vit-b-32", "clip-vit-g-14"]
    assert names_where(lambda protocol: protocol.frechet_figure) == ["shapes", *INCEPTION, "fd-dinov2"]


def test_minimum_number_of_images():
    assert [find_protocol(name).minimum_images(2048) for name in ("shapes", "gigagan", "cmmd", "clip-vit-b-32")] == [
        2, 2049, 1, 1,
    ]  # fmt: skip


def test_shapes_alone_refuses_captions():
    assert find_protocol("shapes").refuse_caption("a red house") == "names no shape of `shapes`"
    assert find_protocol("shapes").refuse_caption("a ring") is None
    assert find_protocol("gigagan").refuse_caption("a red house") is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fd-dino", f"metric protocol 'fd-dino' is unknown: did you mean fd-dinov2? choose from {', '.join(NAMES)}"),
        ("x", f"metric protocol 'x' is unknown: choose from {', '.join(NAMES)}"),
    ],
)
def test_an_unknown_protocol_lists_those_there_are(name, message):
    with pytest.raises(UserError) as raised:
        find_protocol(name)
    assert str(raised.value) == message


def test_one_registration_makes_a_protocol_available(monkeypatch):
    monkeypatch.setattr("lcm_distill.metrics.registry.PROTOCOLS", known := dict(PROTOCOLS))
    own = replace(find_protocol("gigagan"), name="own")
    register_protocol(own)
    register_protocol(own)
    assert find_protocol("own") is own and list(known) == [*NAMES, "own"]
    with pytest.raises(ValueError, match="there is a metric protocol 'own' already"):
        register_protocol(replace(own, sample_size=1))


def test_importing_the_registry_imports_no_library_of_networks():
    code = (
        "import sys, lcm_distill.metrics.registry\n"
        "print([name for name in ('torchvision', 'open_clip', 'transformers', 'diffusers') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_shapes_protocol_opens_the_network_that_ships():
    opened = open_protocol("shapes")
    images = torch.randint(0, 256, (7, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = torch.cat(list(opened.features(images, batch_size=3)))
    assert isinstance(opened.extractor, ShapesExtractor)
    expected, _ = opened.extractor.network(images.float() / 255)
    assert found.shape == (7, opened.extractor.width)
    assert torch.allclose(found, expected, atol=1e-5)


def test_dinov2_counts_five_neighbours_for_all_four_figures_under_names_of_their_own():
    """As dgm-eval does; figures of three neighbours, measured before, stay apart from them."""
    figures = {figure.name: figure for figure in find_protocol("fd-dinov2").figures}
    assert list(figures) == ["fd_dinov2", "precision_k5", "recall_k5", "density", "coverage"]
    generated, real = (torch.randn(60, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    for name, compute in (("precision_k5", precision), ("recall_k5", recall)):
        assert figures[name].compute(generated, real) == compute(generated, real, 5) != compute(generated, real, 3)
    for name, compute in (("density", density), ("coverage", coverage)):
        assert figures[name].compute(generated, real) == compute(generated, real, 5)


def test_figures_of_few_images_carry_a_warning():
    fid, shapes, clip = (find_protocol(name) for name in ("t2i-benchmark", "shapes", "clip-vit-b-32"))
    assert fid.warning("fid", 9_999) == "few images, 10,000 are usual" and fid.warning("fid", 10_000) is None
    assert fid.warning("precision", 2_500) and fid.warning("kid", 2_500) is None  # unbiased (arXiv 1801.01401)
    assert fid.warning("mind", 4_999) == "few images, 5,000 are usual" and fid.warning("mind", 5_000) is None
    assert shapes.warning("frechet_distance", 14) == "few images, 1,000 are usual"
    assert shapes.warning("frechet_distance", 1_000, 1_000) is None and clip.warning("clip_score", 14) is None


def test_figures_against_few_real_images_carry_a_warning():
    """However many are generated; not where the number is unknown, or where nothing is compared."""
    fid, shapes, clip = (find_protocol(name) for name in ("t2i-benchmark", "shapes", "clip-vit-b-32"))
    assert fid.warning("fid", 30_000, 2_100) == "few real images (2,100), 10,000 are usual"
    assert fid.warning("fid", 5_000, 2_100) == "few images and few real images (2,100), 10,000 are usual"
    assert fid.warning("fid", 30_000, 10_000) is None and fid.warning("fid", 30_000, None) is None
    assert fid.warning("precision", 30_000, 75) and fid.warning("kid", 30_000, 75) is None
    assert shapes.warning("frechet_distance", 14, 14) == "few images and few real images (14), 1,000 are usual"
    assert shapes.warning("caption_accuracy", 14, 14) is None and clip.warning("clip_score", 14, 14) is None
