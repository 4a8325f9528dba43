"""What rows of `metrics.parquet` call a set of captions and its noise, in words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lcm_distill.report.figure_columns import of_images

HELD_OUT = "held-out"
"""What rows call captions of the run's data set that no training has seen."""


def caption_set_titles(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each row its captions and seed, such as `1,000 held-out captions, seed 0`; rows with one title compare.

    The hash of a set of captions is part of the words only where two sets would have the same ones.
    """
    images = {row["prompts"]: row["images"] for row in of_images(rows) if row["model"] != "real"}
    named = list[tuple[str, str]]()
    for row in rows:
        name, _, sha256 = row["prompts"].rpartition(":")
        noise = ", the same noise for every image" if row["same_noise"] else ""
        captions = _captions(images.get(row["prompts"], row["images"]), name or sha256)
        named.append((f"{captions}, seed {row['seed']}{noise}", sha256))
    titles = Counter(title for title, _ in {*named})
    return [f"{title}, hash {sha256}" if titles[title] > 1 else title for title, sha256 in named]


def _captions(count: int, name: str) -> str:
    """A set of captions: those of the run's own data set that are held out, or those of a file."""
    return f"{count:,} held-out captions" if name == HELD_OUT else f"{count:,} captions of {name}"
