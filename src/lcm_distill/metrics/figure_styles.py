"""How every figure is shown, by name, in the order of columns. Nothing here imports what computes them."""

from lcm_distill.report.figure_columns import LATENTS, TO_TEACHER, FigureStyle, FigureStyles


def _distance(title: str) -> FigureStyle:
    return FigureStyle(title, "{:.2f}", logarithmic=True)


FIGURE_STYLES = FigureStyles(
    {
        "frechet_distance": _distance("Fréchet distance"),
        "caption_accuracy": FigureStyle("caption accuracy", "{:.1%}"),
        "fid": _distance("FID"),
        "kid": FigureStyle("KID", "{:.5f}"),
        "mind": FigureStyle("MIND", logarithmic=True),
        "precision": FigureStyle("precision"),
        "recall": FigureStyle("recall"),
        "density": FigureStyle("density"),
        "coverage": FigureStyle("coverage"),
        "fd_dinov2": _distance("FD-DINOv2"),
        "precision_k5": FigureStyle("precision, k = 5"),
        "recall_k5": FigureStyle("recall, k = 5"),
        "cmmd": FigureStyle("CMMD"),
        "clip_score": FigureStyle("CLIP score", "{:.4f}"),
        TO_TEACHER: _distance("distance to teacher"),
        "guidance_slope": FigureStyle("guidance slope", "{:.2f}"),
        "guidance_size": FigureStyle("guidance size", "{:.2f}"),
        "guidance_cosine": FigureStyle("guidance cosine", "{:.2f}"),
        "seed_diversity": FigureStyle("seed diversity", "{:.2f}"),
    },
    unnamed=frozenset({"shapes", LATENTS}),
)
"""Others, such as `guidance_slope_from_10`, are shown under their own names. The stand-in's figures appear under no
other protocol."""
