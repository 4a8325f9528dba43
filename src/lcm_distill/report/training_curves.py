"""The curves of a training: a panel for each figure that its events record."""

from collections.abc import Mapping, Sequence
from typing import Any

from lcm_distill.report.charts import Line, Panel

CURVES = {
    "loss": "loss",
    "objective_loss": "loss: objective",
    "critic_loss": "loss: critic",
    "matching_loss": "loss: distribution matching",
    "response_loss": "loss: response to guidance",
    "discriminator_loss": "loss: discriminator",
    "adversarial_loss": "loss: adversarial",
    "critic_error": "critic's error over the teacher's",
    "diversity": "diversity of samples over the data's",
    "logit_margin": "margin of the discriminator",
    "objective_gradient": "gradient's share: objective",
    "matching_gradient": "gradient's share: distribution matching",
    "response_gradient": "gradient's share: response to guidance",
    "adversarial_gradient": "gradient's share: adversarial",
    "gradient_norm": "norm of the gradient",
    "learning_rate": "learning rate",
    "images_per_second": "images a second",
}
"""Columns of a training's events that are drawn, with their titles."""


def training_panels(rows: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """A panel for each of `CURVES` that any row has.

    Args:
        rows: of events, or means of several, in order of their `step`.
    """
    return [
        Panel("step", title, [_curve(name, rows)], whole_x=True)
        for name, title in CURVES.items()
        if any(row.get(name) is not None for row in rows)
    ]


def _curve(name: str, rows: Sequence[Mapping[str, Any]]) -> Line:
    points = [(row["step"], row[name]) for row in rows if row[name] is not None]
    return Line([step for step, _ in points], [value for _, value in points], [0.0] * len(points), 0, marked=False)
