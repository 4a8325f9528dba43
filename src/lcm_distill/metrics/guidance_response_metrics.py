"""How far a student answers to its guidance scale: its difference between two scales beside its teacher's."""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from torch import Tensor


class GuidanceResponse(NamedTuple):
    """A student's response to the guidance scale over its teacher's; all three are 1 for a student that equals it.

    Attributes:
        slope: the student's difference projected on the teacher's, over the teacher's: the coefficient of a regression
            through zero. 0 for a student that ignores its scale, below 0 for one that does the opposite.
        size: root mean square of the student's difference over that of the teacher's.
        cosine: between the two differences, slope / size; 0 where the student has no difference.
    """

    slope: float
    size: float
    cosine: float


def guidance_response(student: Tensor, teacher: Tensor) -> GuidanceResponse:
    """The response over all samples together, so that samples that guidance changes more weigh more.

    Args:
        student, teacher: (B, ...), final latents at the higher scale less those at the lower one, from the same noisy
            samples with the same captions.

    Raises:
        ValueError: the teacher makes no difference between the scales.
    """
    student, teacher = student.double().flatten(), teacher.double().flatten()
    common, own, other = (float(left @ right) for left, right in
                          ((student, teacher), (student, student), (teacher, teacher)))  # fmt: skip
    if other == 0:
        raise ValueError("the teacher makes no difference between the guidance scales")
    slope, size = common / other, (own / other) ** 0.5
    return GuidanceResponse(slope, size, slope / size if size else 0.0)


def mean_response(responses: Sequence[GuidanceResponse]) -> GuidanceResponse:
    """The mean of each figure."""
    return GuidanceResponse(*map(fmean, zip(*responses, strict=True)))
