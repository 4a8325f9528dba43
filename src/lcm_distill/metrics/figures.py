"""Figures by name: which number is computed from which part of the statistics."""

from lcm_distill.metrics.frechet import frechet_distance
from lcm_distill.metrics.interface import Figure
from lcm_distill.metrics.kernels import clip_maximum_mean_discrepancy, kernel_inception_distance
from lcm_distill.metrics.neighbours import coverage, density, precision, recall
from lcm_distill.metrics.statistics import MeanCosine

FRECHET_DISTANCE = Figure("frechet_distance", "moments", frechet_distance)
FID = Figure("fid", "moments", frechet_distance)
FD_DINOV2 = Figure("fd_dinov2", "moments", frechet_distance)
KID = Figure("kid", "features", kernel_inception_distance)
CMMD = Figure("cmmd", "features", clip_maximum_mean_discrepancy)
NEIGHBOURS = (
    Figure("precision", "features", precision),
    Figure("recall", "features", recall),
    Figure("density", "features", density),
    Figure("coverage", "features", coverage),
)
CLIP_SCORE = Figure("clip_score", "cosines", MeanCosine.mean, compares=False)
