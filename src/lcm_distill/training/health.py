"""Signs of a distillation that goes wrong without stopping: figures of a step, and what is said about the last ones."""

import logging
import math
import warnings
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

log = logging.getLogger(__name__)

WINDOW = 50
"""A figure is judged by its mean over so many steps that have it."""
CRITIC_ERROR, LEAST_DIVERSITY, MOST_DIVERSITY, LOGIT_MARGIN, GRADIENT_SHARE = 1.25, 0.5, 1.4, 4.0, 0.95
"""What the means may come to. `lcm distill --preset shapes` keeps well within all of them."""
GRADIENT = "_gradient"
WEIGHTS = {
    "objective": "raise the weights of the others",
    "matching": "lower distill.matching.weight",
    "response": "lower distill.response.weight",
    "adversarial": "lower distill.adversarial.weight",
}
"""Terms of the student's loss, and what helps where one of them takes all of the gradient."""
FIGURES = ("critic_error", "diversity", "logit_margin", *(f"{term}{GRADIENT}" for term in WEIGHTS))
"""Columns in the records of steps.

`critic_error`: the critic's denoising error on the student's noisy samples over the teacher's. One that knows what the
student makes is below 1; one that is lost is far above.
`diversity`: root mean square distance of a pass's samples from their mean, the student's over the cached latents'.
`logit_margin`: the discriminator's mean logit for data less that for samples. Its loss is 0 from 2 on.
`TERM_gradient`: share of a term's gradient in the student's output, by norms over the batch, where there are several.
"""


def health_figures(sums: Mapping[str, float], samples: int) -> dict[str, float]:
    """Figures of a step by their columns, those that can be told.

    Args:
        sums: over the samples of all ranks, as `Observations` names them.
        samples: of the step.
    """
    norms = {name: math.sqrt(square) for name, square in sums.items() if name.endswith(GRADIENT)}
    figures = {
        "critic_error": _ratio(sums, "critic_error", "teacher_error"),
        "diversity": _root(_ratio(sums, "student_spread", "data_spread")),
        "logit_margin": sums["logit_margin"] / samples if "logit_margin" in sums else None,
    }
    if len(norms) > 1 and (whole := sum(norms.values())):
        figures |= {name: norm / whole for name, norm in norms.items()}
    return {name: value for name, value in figures.items() if value is not None and math.isfinite(value)}


def _ratio(sums: Mapping[str, float], above: str, below: str) -> float | None:
    return sums[above] / sums[below] if sums.get(below) else None


def _root(value: float | None) -> float | None:
    return None if value is None else math.sqrt(value)


@dataclass(frozen=True)
class Sign:
    """A figure that is out of its bounds.

    Attributes:
        figure: its column. low, high: what its mean over `WINDOW` steps may come to.
        seen: what is the matter, with a place for the mean. helps: what usually helps.
    """

    figure: str
    low: float
    high: float
    seen: str
    helps: str


SIGNS = (
    Sign(
        "critic_error", 0, CRITIC_ERROR,
        "the critic denoises the student's samples with {:.1f} times the teacher's error: it is far from the student",
        "raise distill.matching.critic_rate or distill.matching.start; if the critic's loss grows, lower the rate",
    ),
    Sign(
        "diversity", LEAST_DIVERSITY, math.inf,
        "the student's samples differ by {:.2f} of what the data does: it collapses",
        "lower distill.matching.guidance_share, distill.adversarial.weight or distill.learning_rate",
    ),
    Sign(
        "diversity", 0, MOST_DIVERSITY,
        "the student's samples differ by {:.2f} times what the data does: they turn to noise",
        "lower distill.learning_rate or distill.matching.weight",
    ),
    Sign(
        "logit_margin", -math.inf, LOGIT_MARGIN,
        "the discriminator's logits for data and samples are {:.1f} apart: it is saturated",
        "lower distill.adversarial.discriminator_rate",
    ),
    *(
        Sign(
            f"{term}{GRADIENT}", 0, GRADIENT_SHARE,
            f"{{:.1%}} of the gradient in the student's samples is of {term}_loss alone", helps,
        )
        for term, helps in WEIGHTS.items()
    ),
)  # fmt: skip


class Health:
    """Judges the figures of one training, step after step.

    Args:
        label: what is trained, for messages.
    """

    def __init__(self, label: str) -> None:
        self.label, self._told = label, set[Sign]()
        self._last = {figure: deque[float](maxlen=WINDOW) for figure in FIGURES}

    def check(self, step: int, figures: Mapping[str, float | None]) -> list[str]:
        """What is to be said after a step, a line each; each kind once.

        The critic is judged once the student follows it.

        Args:
            figures: of the step; others than those of `FIGURES` do not matter.
        """
        for figure, last in self._last.items():
            value = figures.get(figure)
            if value is not None and (figure != "critic_error" or f"matching{GRADIENT}" in figures):
                last.append(value)
        return [self._tell(sign, step) for sign in SIGNS if self._shows(sign)]

    def warn(self, step: int, figures: Mapping[str, float | None]) -> None:
        """Warn of what `check` says, and log it."""
        for line in self.check(step, figures):
            log.warning(line)
            warnings.warn(line, stacklevel=2)

    def _shows(self, sign: Sign) -> bool:
        last = self._last[sign.figure]
        return sign not in self._told and len(last) == WINDOW and not sign.low <= fmean(last) <= sign.high

    def _tell(self, sign: Sign, step: int) -> str:
        self._told.add(sign)
        seen = sign.seen.format(fmean(self._last[sign.figure]))
        return f"{self.label}: {seen} (mean of {WINDOW} steps up to step {step}). What usually helps: {sign.helps}"
