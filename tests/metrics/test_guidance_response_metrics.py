"""The response to the guidance scale, where it is known."""

import pytest
import torch

from lcm_distill.metrics.guidance_response_metrics import GuidanceResponse, guidance_response, mean_response

TEACHER = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
ACROSS = TEACHER.flip(0) - TEACHER * (TEACHER.flip(0) * TEACHER).sum() / TEACHER.square().sum()
"""A difference that has nothing in common with the teacher's."""


@pytest.mark.parametrize(
    ("student", "expected"),
    [
        (TEACHER, (1, 1, 1)),
        (torch.zeros_like(TEACHER), (0, 0, 0)),
        (-0.5 * TEACHER, (-0.5, 0.5, -1)),
        (ACROSS, (0, (ACROSS.norm() / TEACHER.norm()).item(), 0)),
        (0.3 * TEACHER + 0.4 * ACROSS * TEACHER.norm() / ACROSS.norm(), (0.3, 0.5, 0.6)),
    ],
)
def test_known_students(student, expected):
    assert guidance_response(student, TEACHER) == pytest.approx(expected, abs=1e-6)


def test_a_teacher_that_ignores_guidance_has_no_response_to_compare_with():
    with pytest.raises(ValueError, match="no difference"):
        guidance_response(TEACHER, torch.zeros_like(TEACHER))


def test_means():
    assert mean_response([GuidanceResponse(1, 2, 3), GuidanceResponse(3, 4, 5)]) == (2, 3, 4)
