"""Figures by name: what is computed from which part of the statistics. `figure_styles` says how they are shown."""

from collections.abc import Callable
from functools import partial

from lcm_distill.metrics.frechet import frechet_distance
from lcm_distill.metrics.interface import Figure
from lcm_distill.metrics.kernel_distances import clip_maximum_mean_discrepancy, kernel_inception_distance
from lcm_distill.metrics.neighbours import coverage, density, precision, recall
from lcm_distill.metrics.sliced_wasserstein import monge_inception_distance
from lcm_distill.metrics.statistics import MeanScore
from lcm_distill.report.figure_columns import TO_TEACHER

ENOUGH_IMAGES = 10_000
"""Fewer bias Fréchet distances upwards (arXiv 1801.01401), and balls of neighbours grow as vectors get fewer."""


def _frechet(name: str, enough_images: int = ENOUGH_IMAGES) -> Figure:
    return Figure(name, "moments", frechet_distance, enough_images=enough_images)


def _neighbours(name: str, compute: Callable[..., float]) -> Figure:
    return Figure(name, "features", compute, enough_images=ENOUGH_IMAGES)


FRECHET_DISTANCE = _frechet("frechet_distance", enough_images=1_000)
"""Of the stand-in, whose features have 128 dimensions: as many images as its preset generates."""
FID = _frechet("fid")
FD_DINOV2 = _frechet("fd_dinov2")
TEACHER_DISTANCE = _frechet(TO_TEACHER)
"""Of a student's images to its teacher's, under any protocol that has one of the above."""
KID = Figure("kid", "features", kernel_inception_distance)
MIND = Figure("mind", "features", monge_inception_distance, enough_images=5_000)
"""Of fewer images it is larger; its authors compare 5,000 of it with 50,000 of FID."""
CMMD = Figure("cmmd", "features", clip_maximum_mean_discrepancy)
DENSITY = _neighbours("density", density)
COVERAGE = _neighbours("coverage", coverage)
NEIGHBOURS = (
    _neighbours("precision", precision),
    _neighbours("recall", recall),
    DENSITY,
    COVERAGE,
)
"""Precision and recall by the third neighbour, density and coverage by the fifth, as their authors have them."""
FIFTH_NEIGHBOURS = (
    _neighbours("precision_k5", partial(precision, k=5)),
    _neighbours("recall_k5", partial(recall, k=5)),
    DENSITY,
    COVERAGE,
)
"""All four by the fifth neighbour, as dgm-eval has them."""
CLIP_SCORE = Figure("clip_score", "caption_scores", MeanScore.mean, compares=False)
CAPTION_ACCURACY = Figure("caption_accuracy", "caption_scores", MeanScore.mean, compares=False)
