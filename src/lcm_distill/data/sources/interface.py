"""The interface of data sets: captioned images, read in the order that is fastest."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from lcm_distill.formats.images import UnusableImage


@dataclass(frozen=True)
class Annotation:
    """One annotated image.

    Attributes:
        sample_id: identifier, unique in the data set.
        path: where it is, as the source defines paths. Images with the same parent are best read together.
        caption: its text.
        first: the first caption of the image, where it has several, each in an annotation of its own; None: this one.
    """

    sample_id: str
    path: str
    caption: str
    first: str | None = None


@dataclass(frozen=True)
class BadAnnotation:
    """A record that cannot be used as an annotation.

    Attributes:
        source: where it is: the image itself, or a line about it.
        error: the reason.
        image: path of the image that it is about, as of `Annotation`; None where nothing tells one.
    """

    source: str
    error: str
    image: str | None = None


AGAIN = "//"
"""Before the number of what comes again under one name, in paths and identifiers; no name contains it."""
ORPHAN = "caption without an image"
"""Reason of a `LeftOut` that is a caption."""
HIDDEN = "hidden file"
"""Reason of a `LeftOut` whose name, or that of a folder that it lies in, begins with a dot, or is an archiver's own."""
UNNAMED = "named by no annotation"
"""Reason of a `LeftOut` that lies where annotations name the images."""
MISSING = "missing file"
"""What the reason begins with where a record is about an image that does not lie on disk."""
DUPLICATE = "duplicate image"
"""Reason of a further record of a sample, of which the first counts."""


@dataclass(frozen=True)
class LeftOut:
    """What is no part of the data set: an image that is hidden or named by no annotation, a lone caption.

    Attributes:
        source: where it is.
        reason: why it is no part.
        image: whether it is an image, rather than a caption, an archive or a link to a folder.
    """

    source: str
    reason: str
    image: bool = True


Record = Annotation | BadAnnotation | LeftOut


class Source(Protocol):
    """A data set on disk."""

    def annotations(self) -> Iterator[Record]:
        """Every record, in an order that does not change, and the image files on disk that no record is about.

        What comes out passes `records.checked` before anything else sees it.

        Raises:
            UserError: the data set is missing.
        """
        ...

    def read(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
        """Each of `paths` once with the content of its file, in an order that the source chooses.

        `paths` is consumed one parent at a time, so it may be as long as the data set.
        """
        ...

    def file_of(self, path: str) -> Path:
        """The file on disk that a path is read from: the image itself, or the archive that contains it."""
        ...


@dataclass(frozen=True)
class Listing:
    """The images in an archive.

    Attributes:
        archive: its path below the root.
        images: their paths, as of `Annotation`. Of a damaged archive, those before the damage.
        reason: why an image that is not among them is unusable: what begins with `MISSING` if the archive is whole.
    """

    archive: str
    images: frozenset[str]
    reason: str


@runtime_checkable
class TellsLacking(Protocol):
    """A source whose records may have no image of their own, in files that `Source.file_of` names."""

    def lack(self, path: str) -> str | None:
        """Why a record has no image, which begins with `MISSING`, as far as can be told without reading all images."""
        ...


@runtime_checkable
class ListsMembers(Protocol):
    """A source whose `annotations` does not look into its archives, which would take as long as reading the images."""

    def archives_on_disk(self) -> list[Path]:
        """All archives that there are."""
        ...

    def listing(self, archive: Path) -> Listing:
        """The images in an archive, which is read to its end."""
        ...

    def read_listing(
        self, paths: Iterable[str], found: Callable[[Listing], None]
    ) -> Iterator[tuple[str, bytes | UnusableImage]]:
        """As `Source.read`; `found` is called with the listing of each archive before the first image of it."""
        ...
