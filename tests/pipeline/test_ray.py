"""Ray actors do the same work, and dead ones are replaced."""

import pytest

from lcm_distill.core.errors import UserError
from lcm_distill.pipeline.executors.ray_actors import RayActors
from tests.pipeline.workload import EXPECTED, TASKS, assert_traceback_is_logged, contents, fail_at, manifest_in, work_in


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_actors_that_die_are_replaced_and_failures_logged(tmp_path, logs):
    fail_at(tmp_path, TASKS[3], "kill", times=2)
    fail_at(tmp_path, TASKS[11], "bug")
    told = list(RayActors(None, 2).run(TASKS, manifest_in(tmp_path), work_in(tmp_path)))
    assert sorted(task.name for task, _, _ in told) == [task.name for task in TASKS]
    assert contents(tmp_path) == EXPECTED
    assert manifest_in(tmp_path).done(TASKS).keys() == {task.name for task in TASKS}
    assert_traceback_is_logged(logs)


@pytest.mark.filterwarnings("ignore")
def test_an_error_of_the_user_is_told_as_it_is(tmp_path):
    fail_at(tmp_path, TASKS[0], "user")
    with pytest.raises(UserError, match="the VAE is missing: put it there") as caught:
        list(RayActors(None, 1).run(TASKS, manifest_in(tmp_path), work_in(tmp_path)))
    assert len(str(caught.value).splitlines()) == 1
