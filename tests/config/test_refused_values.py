"""Values that would be something else, or work without end: an empty path is the working directory."""

import pytest

from lcm_distill.api.requests import check_settings
from lcm_distill.config import load_preset
from lcm_distill.core.errors import UserError
from tests.command_line import lcm


@pytest.mark.parametrize("key", ["data.root", "cache.run"])
def test_an_empty_path_is_refused(key):
    with pytest.raises(UserError, match=f"{key} = '': is empty: name a file or folder, or leave the key out"):
        load_preset("shapes", [f"{key}="])


HUGE = 10**400


@pytest.mark.parametrize("assignment", ["student_steps=[{}]", "teacher=[['heun', {}]]"])
def test_more_steps_than_any_sampler_takes_are_refused(assignment):
    with pytest.raises(UserError, match="evaluate"):
        load_preset("shapes", [f"evaluate.{assignment.format(HUGE)}"])


def test_the_api_and_options_refuse_them_too():
    with pytest.raises(UserError, match="and 10,000 at most"):
        check_settings(HUGE, None, None)
    for words in (["ablate", "--dry-run", "--seeds"], ["compare-samplers", "x", "--steps"], ["sample", "x", "--steps"]):
        result = lcm(*words, HUGE)
        assert result.exit_code == 2 and "Traceback" not in result.output, words


@pytest.mark.parametrize("assignment", ["data.root=\udcff", "evaluate.reference={x='\udcff'}", "evaluate.\udcff=1"])
def test_bytes_that_are_not_utf_8_are_refused(assignment):
    """A stored configuration is UTF-8; names of files may be anything."""
    with pytest.raises(UserError, match="bytes that are not UTF-8"):
        load_preset("shapes", [assignment])
