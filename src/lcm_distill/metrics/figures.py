"""Figures by name: what is computed from which part of the statistics, and how it is shown."""

from lcm_distill.metrics.frechet import frechet_distance
from lcm_distill.metrics.interface import Figure
from lcm_distill.metrics.kernels import clip_maximum_mean_discrepancy, kernel_inception_distance
from lcm_distill.metrics.neighbours import coverage, density, precision, recall
from lcm_distill.metrics.statistics import MeanScore
from lcm_distill.report.figures import FigureStyle


def _frechet(name: str, title: str) -> Figure:
    return Figure(name, "moments", frechet_distance, FigureStyle(title, "{:.2f}", logarithmic=True))


FRECHET_DISTANCE = _frechet("frechet_distance", "Fréchet distance")
FID = _frechet("fid", "FID")
FD_DINOV2 = _frechet("fd_dinov2", "FD-DINOv2")
KID = Figure("kid", "features", kernel_inception_distance, FigureStyle("KID", "{:.5f}"))
CMMD = Figure("cmmd", "features", clip_maximum_mean_discrepancy, FigureStyle("CMMD"))
NEIGHBOURS = (
    Figure("precision", "features", precision, FigureStyle("precision")),
    Figure("recall", "features", recall, FigureStyle("recall")),
    Figure("density", "features", density, FigureStyle("density")),
    Figure("coverage", "features", coverage, FigureStyle("coverage")),
)
CLIP_SCORE = Figure(
    "clip_score", "caption_scores", MeanScore.mean, FigureStyle("CLIP score", "{:.4f}"), compares=False
)  # fmt: skip
CAPTION_ACCURACY = Figure(
    "caption_accuracy", "caption_scores", MeanScore.mean, FigureStyle("caption accuracy", "{:.1%}"), compares=False
)
