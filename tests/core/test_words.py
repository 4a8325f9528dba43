"""One thing is one, and several are several."""

from lcm_distill.core.words import counted


def test_numbers_of_things():
    assert [counted(number, "place") for number in (0, 1, 2)] == ["0 places", "1 place", "2 places"]
    assert counted(1, "file is", "files are") == "1 file is" and counted(1200, "patch", "patches") == "1,200 patches"
