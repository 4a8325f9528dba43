"""What a data set holds, found by reading it and without storing anything."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
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
    Listing,
    ListsMembers,
    Source,
    TellsLacking,
)
from lcm_distill.data.sources.record_validation import checked, readable, rejected, without_details
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

    def add(self, reason: str, source: str, times: int = 1) -> None:
        reason = without_details(reason)
        self.counts[reason] += times
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
    found, inside, unusable = _Found(), _Inside(source), list[BadAnnotation]()
    for record in checked(source):
        match record:
            case Annotation():
                found.add_annotation(record, inside)
            case BadAnnotation():
                unusable.append(record)
            case LeftOut():
                found.add_left_out(record)
    for record in map(inside.judged, unusable):
        found.add_rejected(record)
    for path in inside.members():
        if hash(path) not in found.images:
            found.add_left_out(unnamed_member(path))
    opened = _opened(source, found.paths, min_size, found.quarantined)
    return {
        "pairs": len(found.samples),
        "captions": len(found.captions),
        "images": len(found.images),
        "captions_without_an_image": found.left_out.counts[ORPHAN],
        "quarantined": found.quarantined.figures(),
        "left_out": found.left_out.figures(),
        **opened,
    }


@dataclass
class _Found:
    """What has been found.

    Attributes:
        samples, captions, images: hashes of those that are distinct; of images, by their paths.
        paths: how many samples each of the images has that are to be opened.
    """

    samples: set[int] = field(default_factory=set[int])
    captions: set[int] = field(default_factory=set[int])
    images: set[int] = field(default_factory=set[int])
    quarantined: _Reasons = field(default_factory=_Reasons)
    left_out: _Reasons = field(default_factory=_Reasons)
    paths: dict[str, int] = field(default_factory=dict[str, int])

    def add_annotation(self, record: Annotation, inside: "_Inside") -> None:
        """Count a sample, unless there is one of its name; archives are read for the first `OPENED` images."""
        path = record.path
        if hash(record.sample_id) in self.samples:
            self.add_rejected(inside.judged(rejected(inside.source, path, DUPLICATE, path)))
            return
        self.samples.add(hash(record.sample_id))
        self.captions.add(hash(record.caption))
        flaw = inside.flaw(path, look=len(self.paths) < OPENED)
        if flaw is None or not flaw.startswith(MISSING):
            self.images.add(hash(path))
        if flaw is not None:
            self.quarantined.add(flaw, path)
        elif path in self.paths or len(self.paths) < OPENED:
            self.paths[path] = self.paths.get(path, 0) + 1

    def add_rejected(self, record: BadAnnotation) -> None:
        """Count a record that would be quarantined."""
        self.quarantined.add(record.error, record.source)
        if record.image is not None and not record.error.startswith(MISSING):
            self.images.add(hash(record.image))

    def add_left_out(self, record: LeftOut) -> None:
        """Count what is no part of the data set."""
        self.left_out.add(record.reason, record.source)
        if record.image:
            self.images.add(hash(record.source))


class _Inside:
    """What can be told of images without decoding them, in archives and tables as well."""

    def __init__(self, source: Source) -> None:
        self.source, self.listings = source, dict[Path, Listing]()
        self.lists = source if isinstance(source, ListsMembers) else None
        self.tables = source if isinstance(source, TellsLacking) else None
        self.archives = set(self.lists.archives_on_disk() if self.lists else ())

    def flaw(self, path: str, look: bool) -> str | None:
        """Why there is no image; None where there may be one.

        Args:
            look: whether to read an archive for it that has not been read yet.
        """
        file = self.source.file_of(path)
        if is_missing(file):
            return MISSING
        if self.lists and look and file in self.archives and file not in self.listings:
            self.listings[file] = self.lists.listing(file)
        if file in self.listings:
            return None if path in self.listings[file].images else self.listings[file].reason
        if self.tables is None or file.name == PurePosixPath(path).name:
            return None
        return self.tables.lack(path)

    def judged(self, record: BadAnnotation) -> BadAnnotation:
        """A rejected record, which says so if its image is in none of the archives that have been read."""
        if not self.listings or record.image is None or record.error.startswith(MISSING):
            return record
        missing = (self.flaw(record.image, look=False) or "").startswith(MISSING)
        return replace(record, error=f"{MISSING}; {record.error}") if missing else record

    def members(self) -> Iterator[str]:
        """The images in archives that have been read."""
        return (path for listing in self.listings.values() for path in sorted(listing.images))


def _opened(source: Source, samples: dict[str, int], min_size: int, quarantined: _Reasons) -> dict[str, Any]:
    """Figures of images that are decoded; those that cannot be are added to `quarantined`.

    Args:
        samples: how many each image has, by its path.
    """
    paths = sorted(samples, key=lambda path: path.rpartition("/")[0])  # each archive is opened once
    sizes, converted = list[tuple[int, int]](), 0
    for path, content in _decoded(source, paths, min_size):
        if isinstance(content, UnusableImage):
            quarantined.add(readable(content), path, samples[path])
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
