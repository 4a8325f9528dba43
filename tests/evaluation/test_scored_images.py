"""The best and worst images of a student are found by their scores."""

import numpy as np
import pytest
from PIL import Image

from lcm_distill.core.errors import DataError
from lcm_distill.evaluation import scored_images
from lcm_distill.evaluation.scored_images import best_and_worst
from lcm_distill.pipeline.run_folder import RunFolder
from tests.runs import borrow


@pytest.fixture
def run(finished_run, tmp_path) -> RunFolder:
    """The finished run, whose images may change."""
    return borrow(finished_run, tmp_path / "run", "student.safetensors", "evaluate", linked=["images", "cache"])


def test_they_are_in_order_and_none_is_in_both(run, small_config, monkeypatch):
    scores = [
        {"image_id": number, "caption": f"of {number}", "caption_score": number * 5 % 14 / 14} for number in range(14)
    ]
    monkeypatch.setattr(scored_images, "_scores", lambda *_: scores)
    found = best_and_worst(small_config, run, 3)
    assert found and (found.title, found.protocol, found.images) == ("student, 2 steps, guidance 2", "shapes", 14)
    assert [image.caption for image in found.best] == ["of 11", "of 8", "of 5"]
    assert [image.caption for image in found.worst] == ["of 0", "of 3", "of 6"]
    file = next(run.evaluate.glob("student-consistency-2-*/*/11.png"))
    assert (np.asarray(found.best[0].image) == np.asarray(Image.open(file))).all()
    several = best_and_worst(small_config, run, 10)
    assert several and (len(several.best), len(several.worst)) == (10, 4)


def test_without_scores_student_or_captions_there_are_none(run, small_config, monkeypatch):
    unscored = small_config.changed(["evaluate.seed=5"], "test")  # of which there are no images
    assert best_and_worst(unscored, run, 3) is None
    with monkeypatch.context() as other:
        other.setattr(scored_images, "_scores", lambda *_: [])
        assert best_and_worst(small_config, run, 3) is None
    (run.root / "cache").unlink()
    assert best_and_worst(small_config, run, 3) is None


def test_a_damaged_image_is_not_shown(run, small_config):
    for file in run.evaluate.glob("student-consistency-2-*/*/*.png"):
        file.write_bytes(file.read_bytes()[::-1])
    with pytest.raises(DataError, match="png"):
        best_and_worst(small_config, run, 3)
