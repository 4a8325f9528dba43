"""Figures by name: what is computed from which part of the statistics, and how it is shown."""

from collections.abc import Callable
from functools import partial

from lcm_distill.metrics.frechet import frechet_distance
from lcm_distill.metrics.interface import Figure
from lcm_distill.metrics.kernel_distances import clip_maximum_mean_discrepancy, kernel_inception_distance
from lcm_distill.metrics.neighbours import coverage, density, precision, recall
from lcm_distill.metrics.sliced_wasserstein import monge_inception_distance
from lcm_distill.metrics.statistics import MeanScore
from lcm_distill.report.figure_columns import FigureStyle

ENOUGH_IMAGES = 10_000
"""Fewer bias Fréchet distances upwards (arXiv 1801.01401), and balls of neighbours grow as vectors get fewer."""


def _frechet(name: str, title: str, enough_images: int = ENOUGH_IMAGES) -> Figure:
    style = FigureStyle(title, "{:.2f}", logarithmic=True)
    return Figure(name, "moments", frechet_distance, style, enough_images=enough_images)


def _neighbours(name: str, compute: Callable[..., float], title: str) -> Figure:
    return Figure(name, "features", compute, FigureStyle(title), enough_images=ENOUGH_IMAGES)


FRECHET_DISTANCE = _frechet("frechet_distance", "Fréchet distance", enough_images=1_000)
"""Of the stand-in, whose features have 128 dimensions: as many images as its preset generates."""
FID = _frechet("fid", "FID")
FD_DINOV2 = _frechet("fd_dinov2", "FD-DINOv2")
TEACHER_DISTANCE = _frechet("teacher_distance", "distance to teacher")
"""Of a student's images to its teacher's, under any protocol that has one of the above."""
KID = Figure("kid", "features", kernel_inception_distance, FigureStyle("KID", "{:.5f}"))
MIND = Figure("mind", "features", monge_inception_distance, FigureStyle("MIND", logarithmic=True), enough_images=5_000)
"""Of fewer images it is larger; its authors compare 5,000 of it with 50,000 of FID."""
CMMD = Figure("cmmd", "features", clip_maximum_mean_discrepancy, FigureStyle("CMMD"))
DENSITY = _neighbours("density", density, "density")
COVERAGE = _neighbours("coverage", coverage, "coverage")
NEIGHBOURS = (
    _neighbours("precision", precision, "precision"),
    _neighbours("recall", recall, "recall"),
    DENSITY,
    COVERAGE,
)
"""Precision and recall by the third neighbour, density and coverage by the fifth, as their authors have them."""
FIFTH_NEIGHBOURS = (
    _neighbours("precision_k5", partial(precision, k=5), "precision, k = 5"),
    _neighbours("recall_k5", partial(recall, k=5), "recall, k = 5"),
    DENSITY,
    COVERAGE,
)
"""All four by the fifth neighbour, as dgm-eval has them."""
CLIP_SCORE = Figure(
    "clip_score", "caption_scores", MeanScore.mean, FigureStyle("CLIP score", "{:.4f}"), compares=False
)  # fmt: skip
CAPTION_ACCURACY = Figure(
    "caption_accuracy", "caption_scores", MeanScore.mean, FigureStyle("caption accuracy", "{:.1%}"), compares=False
)
