"""A folder of images with metadata files, as in the hub's `imagefolder` format, or with a text file for each."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lcm_distill.core.errors import UserError
from lcm_distill.core.regular_files import read_regular
from lcm_distill.data.sources.captions import Captions, NoText, look_up
from lcm_distill.data.sources.file_tree import (
    ALL_ARCHIVES,
    UNREAD_ARCHIVE,
    Tree,
    not_named,
    not_read,
    unread_format,
    walk,
)
from lcm_distill.data.sources.image_files import place_below, read_files
from lcm_distill.data.sources.interface import DUPLICATE, ORPHAN, BadAnnotation, LeftOut, Record
from lcm_distill.formats.images import UnusableImage
from lcm_distill.formats.metadata_files import METADATA, read_metadata
from lcm_distill.formats.tables import MalformedRecord
from lcm_distill.formats.text import MAX_TEXT_BYTES, name_in

FILE_NAME = "file_name"


class ImageFolder:
    """Images named by the metadata files (`METADATA`) below a folder, and those that have a caption file.

    A metadata file decides about the images in its folder and below: those that it does not name are left out. Of the
    others, the caption is in a file of the same name with one of the suffixes of `captions`, where a file of text is
    the field `text`, and a JSON file may have the fields under the image's name.

    Args:
        captions: fields that captions come from, and suffixes of the files.
        image: field of a metadata file with the path of the image.
    """

    def __init__(self, root: Path, captions: Captions, image: str = FILE_NAME) -> None:
        self.root, self.captions, self.image = root, captions, image

    def annotations(self) -> Iterator[Record]:
        """Every record of every metadata file, and every image beyond their reach.

        Raises:
            UserError: there is neither below the root.
        """
        tree = walk(self.root)
        tables = [path for path in tree.files if PurePosixPath(path).name in METADATA]
        if not tables and not tree.images:
            raise UserError(
                f"{self.root} holds no {' or '.join(METADATA)} and no images: set data.root to a folder that does"
            )
        yield from tree.bad
        named = dict[str, str]()
        for path in tables:
            yield from self._records_of(path, tree, named)
        governed = {PurePosixPath(path).parent for path in tables}
        pairs = [path for path in tree.images if governed.isdisjoint(PurePosixPath(path).parents)]
        yield from self._pairs(tree, [path for path in pairs if path not in named], named)
        yield from self._orphans(tree, governed)
        yield from not_read(tree, ALL_ARCHIVES, UNREAD_ARCHIVE)
        yield from not_named(tree, named, "not named by the metadata file above it")

    def read(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
        """Images in the order of `paths`."""
        return read_files(self.root, paths)

    def file_of(self, path: str) -> Path:
        """The image."""
        return self.root / path

    def _records_of(self, table: str, tree: Tree, named: dict[str, str]) -> Iterator[Record]:
        """The records of a metadata file; the files that they name are added to `named`, with the path that does."""
        folder = PurePosixPath(table).parent
        for where, fields in read_metadata(self.root / table):
            path = None
            try:
                if isinstance(fields, ValueError):
                    raise fields
                path = self._path(fields, folder)
                first = named.setdefault(tree.place_of(path), path)
                if first == path:
                    yield from self.captions.annotations(path, path, fields)
                else:
                    yield BadAnnotation(first, DUPLICATE, first)
            except NoText as error:
                others = [] if isinstance(fields, ValueError) else self.captions.others(fields, self.image)
                hint = f", but {' and '.join(others)}: name one with --caption-column" if others else ""
                yield BadAnnotation(str(folder / where), f"malformed annotation: {error}{hint}", path)
            except ValueError as error:
                if path is None and isinstance(error, MalformedRecord):
                    path = self._guessed(error, folder, tree, named)
                yield BadAnnotation(str(folder / where), f"malformed annotation: {error}", path)

    def _guessed(self, record: MalformedRecord, folder: PurePosixPath, tree: Tree, named: dict[str, str]) -> str | None:
        """The image that a record seems to be about, if it is there and not in `named`, to which it is added."""
        for name in record.texts_of(self.image):
            path = place_below(self.root, str(folder), name)
            place = None if path is None else tree.place_of(path)
            if place in tree.known and place not in named:
                return named.setdefault(place, place)
        return None

    def _path(self, fields: Mapping[str, Any], folder: PurePosixPath) -> str:
        """The path of the image that a record names."""
        name = name_in(look_up(fields, self.image), self.image)
        path = place_below(self.root, str(folder), name)
        if path is None:
            raise ValueError(f"{self.image} {name} leaves the data set")
        return path

    def _pairs(self, tree: Tree, images: list[str], named: dict[str, str]) -> Iterator[Record]:
        """Images with their caption files; of several names of an image, the first that has such files is taken."""
        files = self.captions.files_among(tree.files)
        for image in images:
            candidates = ((name, stem) for name in tree.names_of(image) for stem in _stems(name))
            found = (
                (name, stem) for name, stem in candidates if any((stem, it) in files for it in self.captions.suffixes)
            )
            path, stem = next(found, (image, _stem(image)))
            named[image] = path
            if (flaw := unread_format(path)) is not None:
                yield BadAnnotation(path, flaw, path)
                continue
            own = [(suffix, files[stem, suffix]) for suffix in self.captions.suffixes if (stem, suffix) in files]
            contents, key = [(suffix, self._content(name)) for suffix, name in own], PurePosixPath(_stem(path)).name
            try:
                yield from self.captions.annotations_of_files(path, path, contents, "text", key)
            except ValueError as error:
                yield BadAnnotation(path, f"malformed annotation: {error}", path)

    def _content(self, path: str) -> bytes | Exception:
        try:
            return read_regular(self.root / path, MAX_TEXT_BYTES)
        except OSError as error:
            return ValueError(error.strerror or str(error))

    def _orphans(self, tree: Tree, governed: set[PurePosixPath]) -> Iterator[LeftOut]:
        """Caption files without an image, where no metadata file has the captions."""
        stems = {stem for path in (*tree.images, *tree.links) for stem in _stems(path)}
        for path in tree.files:
            images = [stem for stem, _ in self.captions.split(path)]
            if images and stems.isdisjoint(images) and governed.isdisjoint(PurePosixPath(path).parents):
                yield LeftOut(path, ORPHAN, image=False)


def _stems(path: str) -> tuple[str, str]:
    """The names, without suffix, that the captions of an image may have: `c.txt` of `c.png`, else `c.png.txt`."""
    return _stem(path), path


def _stem(path: str) -> str:
    """A path without its suffix."""
    return path.removesuffix(PurePosixPath(path).suffix)
