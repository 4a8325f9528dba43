"""Other libraries' messages, kept off the screen where a user cannot act on them."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

LOGGERS = ("huggingface_hub", "transformers", "diffusers")
"""Libraries that write to the terminal through a logger of their own; open_clip uses the root logger."""


@contextmanager
def quiet_libraries() -> Generator[None]:
    """Keep messages of the libraries that load weights off the terminal, such as those of every retry without network.

    What a caller needs to know is in the error that the block raises. A library that is imported within the block sets
    its own level again: import it before.
    """
    import huggingface_hub  # noqa: F401  # pyright: ignore[reportUnusedImport]

    root, levels = logging.getLogger(), {name: logging.getLogger(name).level for name in LOGGERS}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    root.addFilter(_is_not_of_open_clip)
    try:
        yield
    finally:
        root.removeFilter(_is_not_of_open_clip)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _is_not_of_open_clip(record: logging.LogRecord) -> bool:
    return "open_clip" not in Path(record.pathname).parts
