"""JSON that others can write: what cannot be parsed is a `ValueError`, whatever it is."""

import json
from typing import Any


def parse_json(content: bytes | str) -> Any:
    """The value that JSON stands for; bytes are UTF-8, UTF-16 or UTF-32.

    Raises:
        ValueError: it is not JSON, or nested deeper than this interpreter reads.
    """
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
