"""Prompts that `generate` and `encode` take."""

import pytest

from lcm_distill.api.requests import check_prompts
from lcm_distill.core.errors import UserError


@pytest.mark.parametrize(("prompts", "place"), [([""], 1), (["a red circle", "  "], 2)])
def test_an_empty_prompt_is_refused(prompts, place):
    with pytest.raises(
        UserError, match=f"prompt {place} is empty: give words, or guidance_scale=0 for the null caption"
    ):
        check_prompts(prompts, range(len(prompts)))
