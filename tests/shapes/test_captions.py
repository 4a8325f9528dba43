"""Caption accuracy of `shapes`: which attributes count, and which captions can be scored."""

import torch

from lcm_distill import assets
from lcm_distill.shapes.captions import caption_hits, labels_of, refuse_caption, unknown_words
from lcm_distill.shapes.network import ShapesExtractor
from lcm_distill.shapes.scenes import render_images


def test_caption_hits_need_shape_and_colour():
    logits = {"shape": torch.eye(3), "colour": torch.eye(3), "size": torch.zeros(3, 2)}
    labels = [
        {"shape": 0, "colour": 0, "size": 1},
        {"shape": 1, "colour": 2, "size": 0},
        {"shape": 0, "colour": 2, "size": 0},
    ]
    assert caption_hits(logits, labels).tolist() == [True, False, False]


def test_what_a_caption_leaves_open_is_no_miss():
    logits = {"shape": torch.eye(3), "colour": torch.eye(3)}
    assert caption_hits(logits, [{"shape": 0}, {"colour": 0}, {}]).tolist() == [True, False, True]


def test_labels_are_indices_of_named_values():
    assert labels_of("a small orange star at the top left on a mint background") == {
        "shape": 3, "colour": 1, "size": 0, "position": 5, "background": 1,
    }  # fmt: skip
    assert labels_of("a ring") == {"shape": 5}


def test_captions_without_a_shape_are_refused():
    assert refuse_caption("a red house") == "names no shape of `shapes`" and refuse_caption("a heart") is None


def test_the_extractor_scores_images_against_captions():
    extractor = ShapesExtractor(assets.FEATURES, torch.device("cpu"))
    images, captions = render_images(11, 6, 64)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    features = extractor(pixels)
    assert extractor.caption_scores(features, captions).tolist() == [1.0] * 6
    others = ["a green ring" if "ring" not in caption else "a green star" for caption in captions]
    assert extractor.caption_scores(features, others).tolist() == [0.0] * 6
    assert extractor.caption_scores(features, captions).dtype == torch.float64


def test_words_that_no_caption_has():
    assert unknown_words("a photo of an astronaut, an Astronaut") == ["photo", "of", "an", "astronaut", "Astronaut"]
    assert unknown_words("A small red circle, at the top left on a navy background with a star.") == []
    assert unknown_words("a ring of one size and colour") == ["of", "one", "size", "and", "colour"]
