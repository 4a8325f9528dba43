"""An empty path is refused: it would be the working directory."""

import pytest

from lcm_distill.config import load_preset
from lcm_distill.core.errors import UserError


@pytest.mark.parametrize("key", ["data.root", "cache.run"])
def test_an_empty_path_is_refused(key):
    with pytest.raises(UserError, match=f"{key} = '': is empty: name a file or folder, or leave the key out"):
        load_preset("shapes", [f"{key}="])
