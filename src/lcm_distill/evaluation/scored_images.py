# pyarrow ships no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Generated images by how well they show their captions, as a protocol that scores captions has it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from lcm_distill.config import Config
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.evaluation.image_sets import ImageSet
from lcm_distill.evaluation.prompts import find_prompts
from lcm_distill.evaluation.samplings import student_samplings
from lcm_distill.evaluation.table_schemas import SCORE_COLUMNS
from lcm_distill.pipeline.manifest import FOLDER, Manifest
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import LocalStorage


class ScoredImage(NamedTuple):
    """A generated image in RGB, its caption, and how well it shows that: the higher, the better."""

    image: Image.Image
    caption: str
    score: float


class Extremes(NamedTuple):
    """Images of one sampling with the highest and with the lowest scores.

    Attributes:
        title: of the sampling, with its guidance scale. protocol: that scored them.
        images: how many were scored.
        best, worst: the best one first and the worst one first, of equal ones the first; no image is in both, and none
            of the worst has the highest score.
        as_good, as_bad: how many images have the score of the last of the best, and of the last of the worst.
    """

    title: str
    protocol: str
    images: int
    best: Sequence[ScoredImage]
    worst: Sequence[ScoredImage]
    as_good: int
    as_bad: int


def best_and_worst(config: Config, run: RunFolder, count: int) -> Extremes | None:
    """Best and worst images of the present student, at the first guidance scale, in its most steps that were scored.

    Args:
        count: of the best, and of the worst.

    Returns:
        None where there is no student, none of its images was scored, or the captions are not here.

    Raises:
        DataError: images, scores or captions are not what was written.
    """
    for image_set in _image_sets(config, run):
        for folder in sorted(image_set.folder.glob(f"*/{FOLDER}")):
            if scores := _scores(folder.parent, image_set.remedy):
                return _extremes(image_set, folder.parent.name.rpartition("-")[0], scores, count)
    return None


def _image_sets(config: Config, run: RunFolder) -> list[ImageSet]:
    """Those of the student that the configuration names, most steps first; their images may not be there."""
    try:
        prompts = find_prompts(config, run)
        samplings = sorted(student_samplings(config, run.student), key=lambda sampling: -sampling.steps)
        return [ImageSet(config, run, sampling, prompts) for sampling in samplings]
    except DataError:
        raise
    except (UserError, FileNotFoundError):
        return []


def _scores(folder: Path, remedy: str) -> list[dict[str, Any]]:
    """Rows with a score, of the images of a set of features."""
    rows = Manifest(LocalStorage(folder), SCORE_COLUMNS, remedy).read(columns=["image_id", "caption", "caption_score"])
    return [row for row in rows.to_pylist() if row["caption_score"] is not None]


def _extremes(image_set: ImageSet, protocol: str, scores: Sequence[dict[str, Any]], count: int) -> Extremes:
    rows = {row["image_id"]: row for row in image_set.manifest.read().to_pylist()}

    def opened(chosen: Sequence[dict[str, Any]]) -> list[ScoredImage]:
        found = [(rows[score["image_id"]], score) for score in chosen if score["image_id"] in rows]
        return [ScoredImage(image_set.read(row), score["caption"], score["caption_score"]) for row, score in found]

    def alike(chosen: Sequence[dict[str, Any]]) -> int:
        return sum(row["caption_score"] == chosen[-1]["caption_score"] for row in scores) if chosen else 0

    ordered = sorted(scores, key=lambda row: (-row["caption_score"], row["image_id"]))
    below = [row for row in ordered[count:] if row["caption_score"] < ordered[0]["caption_score"]]
    best, worst = ordered[:count], sorted(below, key=lambda row: (row["caption_score"], row["image_id"]))[:count]
    sampling = image_set.sampling
    title = f"{sampling.title}, guidance {sampling.guidance:g}"
    return Extremes(title, protocol, len(scores), opened(best), opened(worst), alike(best), alike(worst))
