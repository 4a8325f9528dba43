"""JSON that others can write."""

import pytest

from lcm_distill.core.json import parse_json


@pytest.mark.parametrize("content", [b"[" * 100_000, "[" * 100_000, b'{"a":' * 100_000, b"{", b"\xff\xfe\x00", b""])
def test_what_is_not_json_is_a_value_error(content):
    with pytest.raises(ValueError):
        parse_json(content)


def test_what_is_json_is_its_value():
    assert parse_json(b'{"a": [1, 2.5, null]}') == parse_json('{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}
