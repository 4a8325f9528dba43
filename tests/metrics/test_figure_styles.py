"""How figures are shown: each that is computed has a style, in one order."""

from lcm_distill.metrics.figure_styles import FIGURE_STYLES
from lcm_distill.metrics.guidance_response_metrics import GuidanceResponse
from lcm_distill.metrics.metric_definitions import TEACHER_DISTANCE
from lcm_distill.metrics.registry import PROTOCOLS


def test_every_figure_has_a_style_and_every_style_a_figure():
    figures = {figure.name for protocol in PROTOCOLS.values() for figure in protocol.figures}
    responses = {f"guidance_{name}" for name in GuidanceResponse._fields}
    assert set(FIGURE_STYLES.styles) == figures | responses | {TEACHER_DISTANCE.name, "seed_diversity"}


def test_styles_in_the_order_of_columns():
    assert list(FIGURE_STYLES.styles) == [
        "frechet_distance", "caption_accuracy", "fid", "kid", "mind", "precision", "recall", "density", "coverage",
        "fd_dinov2", "precision_k5", "recall_k5", "cmmd", "clip_score", "teacher_distance", "guidance_slope",
        "guidance_size", "guidance_cosine", "seed_diversity",
    ]  # fmt: skip
    assert FIGURE_STYLES.unnamed == {"shapes", "latents"}
    assert FIGURE_STYLES.of("caption_accuracy").form.format(0.5) == "50.0%" and FIGURE_STYLES.of("fid").logarithmic
    assert FIGURE_STYLES.of("another_metric").title == "another metric"


def test_figures_whose_values_span_orders_of_magnitude():
    spanning = [name for name, style in FIGURE_STYLES.styles.items() if style.logarithmic]
    assert spanning == ["frechet_distance", "fid", "mind", "fd_dinov2", "teacher_distance"]
