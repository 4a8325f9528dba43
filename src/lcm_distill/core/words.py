"""Numbers of things in sentences."""


def counted(number: int, one: str, several: str | None = None) -> str:
    """A number and what there are so many of: `1 file is`, `1,200 files are`.

    Args:
        one: the words for 1. several: for any other number; None: `one` with an s.
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
