"""Whatever the JSON of a published folder has in place of a number is one line, and no error of a type."""

import json
from collections.abc import Iterator
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest

from lcm_distill import assets
from lcm_distill.api.requests import check_settings
from lcm_distill.core.errors import UserError
from lcm_distill.models.checkpoint import read_description, read_tensors
from lcm_distill.models.student_description import read_student
from lcm_distill.publishing.diffusers_folder import _network, _scheduler
from lcm_distill.publishing.remote_code.block import Denoise
from lcm_distill.publishing.remote_code.microdit import MicroDiTModel
from lcm_distill.publishing.remote_code.microdit_scheduler import MicroDiTScheduler
from lcm_distill.publishing.remote_code.sampling import checked_guidance

WRONG = ["2.0", "", [], [1.0], {}, None, 10**400, 10**30, -1.0, 1e308, float("nan"), float("inf")]
"""What stands for a number."""
SOUND = [*((("sigmas",), empty) for empty in (None, {})), (("sigmas", "1"), [1.0])]
"""What may stand in its place."""
GUIDANCE = {"guidance_scale": 5.0, "min_guidance_scale": 1.0, "max_guidance_scale": 9.0}


def described() -> Any:
    """What `Published` has of the student that ships, as far as configuration files say it."""
    student = read_student(assets.STUDENT)
    assert student is not None
    return SimpleNamespace(sizes=student.model, sampling=student, diffusion=student.diffusion)


def places(value: Any, place: tuple = ()) -> Iterator[tuple]:
    """Where a JSON value has a number, a list or a table, below its top."""
    if place and not isinstance(value, str | bool | None):
        yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, own in inner:
        yield from places(own, (*place, key))


def changed(value: Any, place: tuple, new: Any) -> Any:
    """The value with another one in a place."""
    value = json.loads(json.dumps(value))
    table = value
    for key in place[:-1]:
        table = table[key]
    table[place[-1]] = deepcopy(new)
    return value


def refused(call: Any, *expected: type[Exception]) -> bool:
    """Whether a call is refused by one short line."""
    try:
        call()
    except expected as error:
        assert "\n" not in str(error) and len(str(error)) < 400, error
        return True
    return False


@pytest.mark.parametrize(("kind", "describe"), [(MicroDiTScheduler, _scheduler), (MicroDiTModel, _network)])
def test_every_number_of_a_configuration_file(kind, describe):
    sound = json.loads(json.dumps(describe(described())))
    kind.from_config(sound)
    count = 0
    for place in places(sound):
        for new in WRONG:
            asked = f"{place} = {new!r:.40}"
            was_refused = refused(lambda place=place, new=new: kind.from_config(changed(sound, place, new)), ValueError)
            assert was_refused or (place, new) in SOUND, asked
            count += 1
    assert count > 100


@pytest.mark.parametrize("name", GUIDANCE)
@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: f"{value!r:.20}")
def test_every_number_of_a_pipeline(name, wrong):
    call = lambda: checked_guidance(SimpleNamespace(**{**GUIDANCE, name: wrong}), None)  # noqa: E731
    if wrong is None and name != "guidance_scale":  # as a teacher's
        assert call() == 5.0
    elif wrong in (1e308, 10**30) and name == "guidance_scale":
        with pytest.warns(UserWarning, match="lies outside 1 to 9"):
            call()
    elif wrong in (1e308, 10**30) and name == "max_guidance_scale":
        assert call() == 5.0
    else:
        assert refused(call, ValueError)


@pytest.mark.parametrize("wrong", ["2.0", [1.0], {}, 10**400, -1.0, float("nan")], ids=lambda value: f"{value!r:.20}")
def test_a_guidance_scale_that_is_no_number(wrong):
    assert refused(lambda: check_settings(None, wrong, None), UserError)
    assert refused(lambda: checked_guidance(SimpleNamespace(**GUIDANCE), wrong), ValueError)


@pytest.mark.parametrize("wrong", ["2.0", 1.5, [1], 10**400, -1], ids=lambda value: f"{value!r:.20}")
def test_a_number_of_steps_that_is_none(wrong):
    scheduler: Any = MicroDiTScheduler.from_config(_scheduler(described()))
    assert refused(lambda: scheduler.set_timesteps(wrong), ValueError)


@pytest.mark.parametrize("wrong", ["text", [1], 10**400, 1.5, True], ids=lambda value: f"{value!r:.20}")
@pytest.mark.parametrize("place", ["metadata", "weight_map", "weight_map of a tensor"])
def test_an_index_of_shards(tmp_path, place, wrong):
    index = {"metadata": {}, "weight_map": {"x": "a.safetensors"}}
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(changed(index, ("weight_map", "x") if " of " in place else (place,), wrong)))
    for read in (read_description, read_tensors):
        assert refused(lambda read=read: read(path), UserError) or (place != "metadata" and read is read_description)


def test_blocks_check_their_guidance(monkeypatch):
    """As the pipeline does: their default comes from a file as well."""
    state = SimpleNamespace(prompt_embeds=SimpleNamespace(to=lambda device: None), guidance_scale=None)
    monkeypatch.setattr(Denoise, "get_block_state", lambda self, _: state)
    components = SimpleNamespace(
        transformer=SimpleNamespace(device="cpu"), config=SimpleNamespace(guidance_scale="5.0")
    )
    with pytest.raises(ValueError, match=r"guidance_scale is '5\.0': it must be a number"):
        Denoise()(components, None)
