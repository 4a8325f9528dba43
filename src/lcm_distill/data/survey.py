"""What a data set holds, found by reading it and without storing anything."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from lcm_distill.data.sources.file_tree import unnamed_member
from lcm_distill.data.sources.image_files import is_missing
from lcm_distill.data.sources.interface import (
    DUPLICATE,
    MISSING,
    ORPHAN,
    Annotation,
    BadAnnotation,
    LeftOut,
    ListsMembers,
    Source,
)
from lcm_distill.data.sources.record_validation import checked, readable, without_details
from lcm_distill.data.transforms import CONVERTED, decode
from lcm_distill.formats.images import UnusableImage

OPENED = 1_000
"""The most images that are decoded; the first ones, so that an archive need not be read to its end."""
EXAMPLES = 3


@dataclass
class _Reasons:
    """Counts by reason, with a few examples of each."""

    counts: Counter[str] = field(default_factory=Counter[str])
    examples: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def add(self, reason: str, source: str) -> None:
        reason = without_details(reason)
        self.counts[reason] += 1
        named = self.examples.setdefault(reason, [])
        if len(named) < EXAMPLES:
            named.append(source)

    def figures(self) -> dict[str, str]:
        """Count and examples, by reason, the most frequent first."""
        return {
            reason: f"{count:,}, such as {', '.join(self.examples[reason])}"
            for reason, count in self.counts.most_common()
        }


def survey(source: Source, min_size: int) -> dict[str, Any]:
    """Figures of a data set: pairs, what would be quarantined or left out and why, and the sizes of images.

    Args:
        min_size: least length of an image's shorter side, in pixels.

    Returns:
        `pairs`: usable annotations; `captions`: distinct ones; `images`: images that a record is about or that lie on
        disk, each once. `quarantined` and `left_out`: number and examples by reason; a caption without an image is
        among the latter. `opened`: how many images were decoded, the first `OPENED`; `sizes`, `aspect_ratios` (width
        over height): least, median and greatest of them.

    Raises:
        UserError: there is no data set.
    """
    samples, captions, images = set[int](), set[int](), set[int]()
    quarantined, left_out, paths = _Reasons(), _Reasons(), list[str]()
    for record in checked(source):
        match record:
            case Annotation() if hash(record.sample_id) in samples:
                quarantined.add(DUPLICATE, record.path)
            case Annotation():
                samples.add(hash(record.sample_id))
                captions.add(hash(record.caption))
                paths += [record.path] if len(paths) < OPENED and record.path not in paths[-1:] else []
                images |= set() if is_missing(source.file_of(record.path)) else {hash(record.path)}
            case BadAnnotation(where, error, image):
                quarantined.add(error, where)
                images |= set() if image is None or error.startswith(MISSING) else {hash(image)}
            case LeftOut(where, reason, image):
                left_out.add(reason, where)
                images |= {hash(where)} if image else set()
    paths.sort(key=lambda path: path.rpartition("/")[0])  # each archive is opened once
    _add_members(source, paths, images, left_out)
    found = {"pairs": len(samples), "captions": len(captions), "images": len(images)}
    found["captions_without_an_image"] = left_out.counts[ORPHAN]
    opened = _opened(source, paths, min_size, quarantined)
    return {**found, "quarantined": quarantined.figures(), "left_out": left_out.figures(), **opened}


def _add_members(source: Source, paths: list[str], images: set[int], left_out: _Reasons) -> None:
    """Add what the archives of `paths` hold beside `images`."""
    if not isinstance(source, ListsMembers):
        return
    archives = set(source.archives_on_disk())
    for archive in dict.fromkeys(file for path in paths if (file := source.file_of(path)) in archives):
        for path in sorted(source.listing(archive).images):
            if hash(path) not in images:
                left_out.add(unnamed_member(path).reason, path)
                images.add(hash(path))


def _opened(source: Source, paths: list[str], min_size: int, quarantined: _Reasons) -> dict[str, Any]:
    """Figures of images that are decoded; those that cannot be are added to `quarantined`."""
    sizes, converted = list[tuple[int, int]](), 0
    for path, content in _decoded(source, paths, min_size):
        if isinstance(content, UnusableImage):
            quarantined.add(readable(content), path)
        else:
            sizes.append(content[0])
            converted += content[1]
    if not sizes:
        return {"opened": len(paths)}
    return {
        "opened": len(paths),
        "colours_converted": converted,
        "widths": _spread([width for width, _ in sizes]),
        "heights": _spread([height for _, height in sizes]),
        "aspect_ratios": _spread([round(width / height, 2) for width, height in sizes]),
    }


def _decoded(
    source: Source, paths: list[str], min_size: int
) -> Iterator[tuple[str, tuple[tuple[int, int], bool] | UnusableImage]]:
    for path, content in source.read(paths):
        try:
            image = decode(content, min_size)
            yield path, (image.size, CONVERTED in image.info)
        except UnusableImage as reason:
            yield path, reason


def _spread(values: list[float] | list[int]) -> str:
    return f"{min(values):g} to {max(values):g}, median {median(values):g}"
