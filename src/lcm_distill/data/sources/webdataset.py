"""WebDataset: tar archives with images and, under the same key, captions as `key.txt` or `key.json`."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from lcm_distill.core.errors import UserError
from lcm_distill.core.images import IMAGE_SUFFIXES
from lcm_distill.data.sources.captions import CAPTION_SUFFIXES, choose_caption, read_fields
from lcm_distill.data.sources.interface import Annotation, BadAnnotation, UnusableImage
from lcm_distill.data.sources.tars import DAMAGE, read_members, stream_members


class WebDataset:
    """All `.tar` archives below a folder.

    The fields of a record are those of its `.json` file, and `txt` for its `.txt` file.

    Args:
        captions: fields that captions come from, with their weights.
    """

    def __init__(self, root: Path, captions: Mapping[str, float]) -> None:
        self.root, self.captions = root, captions

    def annotations(self) -> Iterator[Annotation | BadAnnotation]:
        """Every record of every archive.

        Raises:
            UserError: there is no archive below the root.
        """
        archives = sorted(self.root.rglob("*.tar"))
        if not archives:
            raise UserError(f"{self.root} holds no .tar archive: set data.root to a WebDataset's folder")
        for archive in archives:
            yield from self._annotations_of(archive)

    def read(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
        """Images streamed from their archives. A path is `archive.tar/member`."""
        for archive, members in groupby(paths, key=_archive_of):
            yield from read_members(self.root / archive, {path.removeprefix(f"{archive}/"): path for path in members})

    def file_of(self, path: str) -> Path:
        """The archive."""
        return self.root / _archive_of(path)

    def _annotations_of(self, archive: Path) -> Iterator[Annotation | BadAnnotation]:
        where = archive.relative_to(self.root).as_posix()
        images: dict[str, str] = {}
        records: dict[str, dict[str, Any]] = {}

        def is_text(name: str) -> bool:
            key, suffix = _split(name)
            if suffix in IMAGE_SUFFIXES:
                images[key] = name
            return suffix in CAPTION_SUFFIXES

        try:
            for name, content in stream_members(archive, is_text):
                key, suffix = _split(name)
                records.setdefault(key, {}).update(read_fields(suffix, content, "txt"))
        except DAMAGE as error:
            yield BadAnnotation(where, f"damaged archive: {error}")
        for key, image in images.items():
            try:
                caption = choose_caption(records.get(key, {}), self.captions, f"{where}/{key}")
            except ValueError as error:
                yield BadAnnotation(f"{where}/{key}", f"malformed annotation: {error}")
                continue
            yield Annotation(f"{where}/{key}", f"{where}/{image}", caption)


def _split(name: str) -> tuple[str, str]:
    """Key and suffix of a file: the key ends at the first dot of the file's own name."""
    path = PurePosixPath(name)
    stem, dot, ending = path.name.partition(".")
    return str(path.with_name(stem)) if stem else name, f".{ending.lower()}" if dot else ""


def _archive_of(path: str) -> str:
    archive, ending, _ = path.partition(".tar/")
    return (archive + ending).removesuffix("/")
