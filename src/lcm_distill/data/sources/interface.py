"""What a data set hands over: captioned images, read in whatever order suits it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Annotation:
    """One annotated image.

    Attributes:
        sample_id: its name, unique in the data set.
        path: where it lies, as the source spells it. Images with the same parent are best read together.
        caption: what it shows.
    """

    sample_id: str
    path: str
    caption: str


@dataclass(frozen=True)
class BadAnnotation:
    """A record that is no annotation, and why."""

    source: str
    error: str


class UnusableImage(Exception):
    """An image that cannot be used; the message is the reason that goes into the manifest."""


class Source(Protocol):
    """A data set on disk."""

    def annotations(self) -> Iterator[Annotation | BadAnnotation]:
        """Every record, in an order that does not change.

        Raises:
            UserError: the data set is not where it was looked for.
        """
        ...

    def read(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
        """The files at `paths`: each is answered once, in an order of the source's own.

        `paths` is consumed a parent at a time, so it may be as long as the data set.
        """
        ...

    def holder(self, path: str) -> Path:
        """The file on disk that a path is read from: the image itself, or the archive it lies in."""
        ...
