"""Values that would be something else, or work without end: an empty path is the working directory."""

from typing import get_args

import pytest

from lcm_distill.api.requests import check_settings
from lcm_distill.config import Config, load_preset
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
            "Input should be a valid number, not a table: write data.captions.Task2=VALUE or "
            'data.captions={"Task2.Caption" = VALUE}',
        ),
        ("data.root={a=1}", "data.root = {'a': 1}: Input should be a path, not a table: write data.root=VALUE"),
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
