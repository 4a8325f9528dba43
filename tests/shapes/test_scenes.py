"""The stand-in images: deterministic, true to their captions, in JourneyDB's layout."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcm_distill.data.sources.captions import Captions
from lcm_distill.data.sources.interface import Annotation
from lcm_distill.data.sources.journeydb import IMAGES, JourneyDB
from lcm_distill.data.transforms import decode
from lcm_distill.shapes import dataset
from lcm_distill.shapes.dataset import annotations_path, write_images
from lcm_distill.shapes.scenes import (
    BACKGROUNDS,
    COLOURS,
    POSITIONS,
    Scene,
    brief_caption,
    named_in,
    render,
    render_image,
    scene_of,
)


def test_a_image_depends_on_seed_and_index_alone():
    (first, caption), (again, same), (other, _) = render_image(0, 7, 64), render_image(0, 7, 64), render_image(1, 7, 64)
    assert caption == same and first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize("index", range(20))
def test_caption_says_what_is_drawn(index):
    image, caption = render_image(3, index, 64)
    scene, pixels = scene_of(caption), np.asarray(image, float)
    right, down = POSITIONS[scene.position]
    # The middle of a ring is background, so look half-way between hole and rim.
    radius = {"small": 0.16, "medium": 0.22, "large": 0.29}[scene.size]
    reach = 0.76 * radius if scene.shape == "ring" else 0.0
    x, y = (round(64 * (0.5 + place)) for place in (right - reach, down))
    assert nearest(pixels[y, x], COLOURS) == scene.colour
    corner = (1, 1) if right >= 0 and down >= 0 else (-2, -2)
    assert nearest(pixels[corner], BACKGROUNDS) == scene.background


def nearest(pixel, palette):
    return min(palette, key=lambda name: np.abs(pixel - palette[name]).sum())


def test_large_is_larger_than_small():
    def area(size):
        scene = Scene("circle", "red", size, "in the centre", "cream")
        pixels = np.asarray(render(scene, 64, np.random.default_rng(0)), float)
        return (np.abs(pixels - COLOURS["red"]).sum(-1) < 120).sum()

    assert area("small") < area("medium") < area("large")


def test_longest_phrase_counts():
    assert scene_of("a small red circle at the top left on a navy background").position == "at the top left"
    with pytest.raises(ValueError, match="names no colour"):
        scene_of("a small circle at the top on a navy background")


def test_brief_captions_name_the_shape_and_half_of_the_rest():
    scene = Scene("heart", "red", "large", "at the top left", "navy")
    named = [named_in(brief_caption(scene, 0, index)) for index in range(400)]
    assert all(words.items() <= vars(scene).items() and "shape" in words for words in named)
    for attribute in ("colour", "size", "position", "background"):
        assert 160 < sum(attribute in words for words in named) < 240
    assert "a heart" in {brief_caption(scene, 0, index) for index in range(400)}
    assert brief_caption(scene, 0, 5) == brief_caption(scene, 0, 5)


def test_a_write_that_is_refused_names_its_image(tmp_path, monkeypatch):
    """Pillow's error of a full device names no file."""

    def full(*_: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space") as refused:
        dataset._write_image(tmp_path, 0, 64, 7)
    assert Path(refused.value.filename).parent == tmp_path / IMAGES / "000"


@pytest.mark.parametrize("few", [0, 3], ids=["on all cores", "here"])
def test_layout_is_journeydbs(tmp_path, monkeypatch, few):
    monkeypatch.setattr(dataset, "FEW", few)
    lines = [line for _, line in write_images(tmp_path, seed=0, count=3, width=64)]
    annotations_path(tmp_path).write_text("\n".join(lines) + "\n")
    source = JourneyDB(tmp_path, None, Captions({"prompt": 1.0}))
    annotations = [record for record in source.annotations() if isinstance(record, Annotation)]
    assert [annotation.caption for annotation in annotations] == [render_image(0, index, 64)[1] for index in range(3)]
    brief = JourneyDB(tmp_path, None, Captions({"Task2.Caption": 1.0})).annotations()
    assert [record.caption for record in brief if isinstance(record, Annotation)] == [
        brief_caption(scene_of(render_image(0, index, 64)[1]), 0, index) for index in range(3)
    ]
    contents = dict(source.read([annotation.path for annotation in annotations]))
    assert decode(contents[annotations[0].path], 64).size == (64, 64)
