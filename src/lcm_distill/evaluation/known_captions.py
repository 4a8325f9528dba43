"""Whether a model has seen such captions: said of those that know `shapes` alone, before they generate."""

from collections.abc import Sequence
from pathlib import Path

from lcm_distill.api import is_file, is_shipped, open_config
from lcm_distill.data.sources.registry import source_type
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.shapes.captions import refuse_caption, unknown_words


def unknown_caption(where: str, captions: Sequence[str], elsewhere: Path | None = None) -> str | None:
    """What the first caption that a model of `shapes` cannot draw has that it does not know, in one line.

    Args:
        where: run folder, student's file, or `shapes`. elsewhere: a checkpoint that generates instead, if any.

    Returns:
        None where it knows all, and of a model that may have been trained on other captions.
    """
    if elsewhere or is_file(where) or not (is_shipped(where) or RunFolder(Path(where)).exists):
        return None
    if not source_type(open_config(where).data).generated:
        return None
    for caption in captions:
        if (words := unknown_words(caption)) or refuse_caption(caption):
            lacks = f"it does not know {', '.join(words)}" if words else "no shape is named"
            return f"this model generates one coloured shape on a background: of {caption!r:.80} {lacks:.200}"
    return None
