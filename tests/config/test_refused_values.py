"""Values that would be something else, or work without end: an empty path is the working directory."""

from typing import get_args

import pytest

from lcm_distill.api.requests import check_settings
from lcm_distill.config import Config, load_file, load_preset
from lcm_distill.config.describe import describe
from lcm_distill.config.section import Section
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


def tables(kind: type[Section] = Config, *location: str):
    """Every table of a configuration with its keys."""
    for name, field in kind.model_fields.items():
        kinds = [each for each in (field.annotation, *get_args(field.annotation)) if isinstance(each, type)]
        for section in kinds:
            if issubclass(section, Section):
                yield ".".join((*location, name)), list(section.model_fields)
                yield from tables(section, *location, name)


@pytest.mark.parametrize("value", ["x", "5", "[1]", "true"])
@pytest.mark.parametrize(("table", "keys"), list(tables()))
def test_a_value_for_a_table_is_told_the_tables_keys(table, keys, value):
    with pytest.raises(UserError) as refused:
        load_preset("shapes", [f"{table}={value}"])
    listed = f"{table} is a table with the keys {', '.join(keys)}: write {table}.{keys[0]}=VALUE, or another of them"
    assert str(refused.value).endswith(f": {listed}")


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("data=sources", "data is a table: did you mean its key source? Write data.source=VALUE"),
        ("pretrain.stepss=3", "unknown key pretrain.stepss: did you mean steps?"),
        (
            "evaluate.student_sigmas=3",
            "evaluate.student_sigmas is a table of names and values: write evaluate.student_sigmas={1 = [VALUE, ...]}",
        ),
        (
            "data.captions=text",
            "data.captions is a table of names and values: write data.captions={NAME = VALUE}",
        ),
        (
            "data.captions.Task2.Caption=1",
            'must be a number, not a table: write data.captions.Task2=VALUE or data.captions={"Task2.Caption" = VALUE}',
        ),
        ("data.root={a=1}", "data.root = {'a': 1}: must be a path, not a table: write data.root=VALUE"),
        ("data.images.deeper=1", "data.images is one value and no table: write data.images=VALUE"),
        ("evaluate.teacher={heun=4}", "not a table: write evaluate.teacher=[VALUE, ...]"),
        ("evaluate.guidance={a=1}", "not a table: write evaluate.guidance=[VALUE, ...]"),
    ],
)
def test_what_to_write_for_a_table_and_for_a_value(assignment, said):
    with pytest.raises(UserError) as refused:
        load_preset("shapes", [assignment])
    assert str(refused.value).endswith(said)


VALUES = [
    key.name for key in describe(load_preset("shapes")) if not isinstance(key.value, dict) and "dict" not in key.type
]


@pytest.mark.parametrize("key", VALUES)
def test_a_table_for_a_value_is_refused_with_what_to_write(key):
    with pytest.raises(UserError) as refused:
        load_preset("shapes", [f"{key}={{a = 1}}"])
    said = str(refused.value)
    assert said.endswith((f", not a table: write {key}=VALUE", f", not a table: write {key}=[VALUE, ...]"))


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("distill.steps=1.5", "distill.steps = 1.5: must be a whole number"),
        ("distill.steps=[1]", "distill.steps = [1]: must be a whole number"),
        ("distill.steps=0", "distill.steps = 0: must be greater than 0"),
        ("distill.learning_rate=fast", "distill.learning_rate = 'fast': must be a number"),
        ("distill.learning_rate=inf", "distill.learning_rate = inf: must be a finite number"),
        ("pretrain.mask_ratio=1.0", "pretrain.mask_ratio = 1.0: must be less than 1.0"),
        ("distill.fresh_noise=maybe", "distill.fresh_noise = 'maybe': must be true or false"),
        ("evaluate.guidance=[2, 'a']", "evaluate.guidance.1 = 'a': must be a number"),
        ("evaluate.guidance=[]", "evaluate.guidance = []: must have 1 or more values, not 0"),
        ("evaluate.protocols=clip", "evaluate.protocols = 'clip': must be a list, such as [VALUE, ...]"),
        ("evaluate.teacher=[['heun', 1, 2]]", "evaluate.teacher.0 = ['heun', 1, 2]: must have at most 2 values, not 3"),
        ("evaluate.dtype=float16", "evaluate.dtype = 'float16': must be 'auto', 'float32' or 'bfloat16'"),
        ("model.teacher=3", "model.teacher = 3: must be text in quotes"),
        ("data.root=3", "data.root = 3: must be a path in quotes"),
        ("evaluate.student_sigmas={x=[1.0]}", "evaluate.student_sigmas.x: the name 'x' must be a whole number"),
    ],
)
def test_what_a_value_must_be_is_said_in_plain_words(assignment, said):
    with pytest.raises(UserError) as refused:
        load_preset("shapes", [assignment])
    assert str(refused.value) == f"--set {assignment}: {said}"


@pytest.mark.parametrize("key", VALUES)
@pytest.mark.parametrize("value", ["x", "[[[]]]", "-1.5", "true"])
def test_no_refusal_has_the_words_of_a_library(key, value):
    try:
        load_preset("shapes", [f"{key}={value}"])
    except UserError as refused:
        assert "nput" not in str(refused)


UNKNOWN = "unknown key data.imges: did you mean images?"
NUMBER = "distill.steps = 'many': must be a whole number"
SIGMAS = "diffusion: sigma_min {:.1f} must lie below sigma_max {:.1f}"


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (["distill.steps=many"], f"--set distill.steps=many: {NUMBER}"),
        (["seed=3", "distill.steps=many", "device=cpu"], f"--set distill.steps=many: {NUMBER}"),
        (["distill.steps=7", "distill.steps=many"], f"--set distill.steps=many: {NUMBER}"),
        (["seed=3", "diffusion.sigma_min=90"], f"--set diffusion.sigma_min=90: {SIGMAS.format(90, 80)}"),
        (
            ["diffusion.sigma_min=9", "diffusion.sigma_max=8"],
            f"--set diffusion.sigma_min=9 and --set diffusion.sigma_max=8: {SIGMAS.format(9, 8)}",
        ),
        (["data.imges=5", "distill.steps=many"], f"--set data.imges=5: {UNKNOWN}; --set distill.steps=many: {NUMBER}"),
    ],
)
def test_what_set_gave_is_blamed_on_it(assignments, said):
    with pytest.raises(UserError) as refused:
        load_preset("shapes", assignments)
    assert str(refused.value) == said


def test_what_a_file_holds_is_blamed_on_the_file(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(load_preset("shapes").to_toml().replace("steps = 300", 'steps = "many"'))
    for assignments in ([], ["seed=3"]):
        with pytest.raises(UserError, match=r"own\.toml: distill\.steps = 'many'") as refused:
            load_file(path, assignments)
        assert "--set" not in str(refused.value)
    with pytest.raises(UserError) as refused:
        load_file(path, ["data.imges=5"])
    assert sorted(str(refused.value).split("; ")) == [f"--set data.imges=5: {UNKNOWN}", f"{path}: {NUMBER}"]


def test_options_that_stand_for_an_assignment_are_blamed_by_their_own_names(finished_run, tmp_path):
    result = lcm("precompute", "--preset", "shapes", "--run", tmp_path / "run", "--caption-column", "")
    assert result.stderr.startswith("lcm: --caption-column '': data.captions")
    shared = ["--cache", finished_run.root, "--run", tmp_path / "run"]
    result = lcm("distill", *shared, "--set", "distill.steps=many")
    assert (result.exit_code, result.stderr) == (2, f"lcm: --set distill.steps=many: {NUMBER}\n")
    assert not (tmp_path / "run").exists()
