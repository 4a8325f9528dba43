"""Samplers of the API by the names that the command line has."""

import pytest
import torch

from lcm_distill.api import LatentConsistencyModel, open_model
from lcm_distill.core.errors import UserError
from lcm_distill.diffusion.few_step_samplers import Original

PROMPT = "a large red circle"


def test_samplers_are_taken_by_their_names():
    student = open_model("shapes")
    assert isinstance(student, LatentConsistencyModel)
    original = student.sampling.sampler(2, "original")
    assert isinstance(original, Original) and original.steps == 2
    named = student.generate(PROMPT, 2, seed=0, sampler="original")
    assert torch.equal(named, student.generate(PROMPT, seed=0, sampler=original))
    assert not torch.equal(named, student.generate(PROMPT, 2, seed=0, sampler="own"))
    assert torch.equal(student.generate(PROMPT, 2, seed=0, sampler="own"), student.generate(PROMPT, 2, seed=0))
    for name in ("heun", "origina"):
        with pytest.raises(UserError, match=f"sampler '{name}' does not suit this model: give own or original, or a"):
            student.generate(PROMPT, 2, seed=0, sampler=name)
