"""Commands that only look search memory for no cycles, and leave that as it was."""

import gc

import pytest

from lcm_distill.core.errors import UserError
from tests.command_line import lcm


@pytest.mark.parametrize(
    ("words", "work"), [(["status"], "status.status"), (["inspect", "FROM metrics"], "queries.select")]
)
def test_cycles_are_searched_for_again_after_a_look(tmp_path, monkeypatch, words, work):
    during = list[bool]()

    def look(*_):
        during.append(gc.isenabled())
        raise UserError("nothing here")

    monkeypatch.setattr(f"lcm_distill.stages.{work}", look)
    monkeypatch.setattr("lcm_distill.commands.run_choice.Choice.load", lambda *_, **__: (None, None))
    assert lcm(*words, "--run", tmp_path).stderr == "lcm: nothing here\n"
    assert during == [False] and gc.isenabled()
