"""MS-COCO: a JSON file of captions, about five for each image, and a folder of images."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeGuard, cast

from lcm_distill.core.errors import UserError, one_line
from lcm_distill.core.regular_files import read_regular
from lcm_distill.data.sources.captions import numbered
from lcm_distill.data.sources.file_tree import Tree, not_named, walk
from lcm_distill.data.sources.identifiers import Identifiers
from lcm_distill.data.sources.image_files import place_below, read_files
from lcm_distill.data.sources.interface import DUPLICATE, ORPHAN, BadAnnotation, LeftOut, Record
from lcm_distill.formats.images import UnusableImage
from lcm_distill.formats.text import MAX_TABLE_BYTES, list_in, name_in, parse_object, trimmed

CAPTION_FILES = "captions_*.json"
REMEDY = "download it again, or move it away to go without its images"


class Coco:
    """`annotations/captions_<split>.json` and the images in `<split>/`, for each split that exists.

    The images may also be in `images/<split>/`, in `images/`, or beside the caption files, and the caption files in the
    root itself. The caption of an image is the first one that has text, in order of caption id.

    Args:
        every: each caption of an image makes a sample of its own.
    """

    def __init__(self, root: Path, every: bool = False) -> None:
        self.root, self.every = root, every

    def annotations(self) -> Iterator[Record]:
        """Every image of every split.

        Raises:
            UserError: there is no caption file below the root, or it does not have the format of COCO.
        """
        found = [path for folder in ("annotations", ".") for path in sorted((self.root / folder).glob(CAPTION_FILES))]
        if not found:
            raise UserError(f"{self.root}/annotations holds no {CAPTION_FILES}: set data.root to COCO's folder")
        tree, named, identifiers = walk(self.root), dict[str, str](), Identifiers()
        yield from tree.bad
        for path in found:
            yield from self._annotations_of(path, tree, named, identifiers)
        yield from not_named(tree, named, "not named by a file of captions")

    def read(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
        """Images in the order of `paths`."""
        return read_files(self.root, paths)

    def file_of(self, path: str) -> Path:
        """The image."""
        return self.root / path

    def _annotations_of(
        self, path: Path, tree: Tree, named: dict[str, str], identifiers: Identifiers
    ) -> Iterator[Record]:
        """The images of a file; the paths that it names are added to `named`, by the place of their file."""
        split, folder = path.stem.removeprefix("captions_"), path.parent.relative_to(self.root).as_posix()
        images, captions = _read(path)
        texts = _texts(captions)
        for order, image in enumerate(images):
            number, record = image.get("id"), f"{path.name}: image {_called(image, order)}"
            try:
                where = _place(name_in(image.get("file_name"), "file_name"), split, folder, tree)
            except ValueError as error:
                yield BadAnnotation(record, f"malformed annotation: {error}")
                continue
            place = tree.place_of(where)
            if (first := named.get(place)) is not None:
                yield BadAnnotation(first, DUPLICATE, first)
                continue
            named[place] = where
            if not _is_id(number):
                yield BadAnnotation(record, "malformed annotation: no id", where)
            elif number not in texts:
                yield BadAnnotation(where, "malformed annotation: no caption", where)
            else:
                own = f"{split}/{number}"
                identifiers.take(own, where)
                yield from numbered(identifiers.of(own, where), where, texts[number][: None if self.every else 1])
        yield from _orphans(path.name, images, captions)


def _read(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Images and captions; what is no record is an empty one."""
    try:
        content = parse_object(read_regular(path, MAX_TABLE_BYTES))
        images, captions = (
            [cast(dict[str, Any], it) if isinstance(it, dict) else {} for it in list_in(content, key)]
            for key in ("images", "annotations")
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a file of COCO captions: {one_line(error)}: {REMEDY}") from error
    return images, captions


def _texts(captions: list[dict[str, Any]]) -> dict[Any, list[str]]:
    """The captions of each image that have text, in order of caption id."""
    texts: dict[Any, list[str]] = {}
    numbered = [record for record in captions if isinstance(record.get("id"), int)]
    others = [record for record in captions if not isinstance(record.get("id"), int)]
    for record in [*sorted(numbered, key=lambda record: record["id"]), *others]:
        image, text = record.get("image_id"), record.get("caption")
        if _is_id(image) and isinstance(text, str) and trimmed(text):
            texts.setdefault(image, []).append(trimmed(text))
    return texts


def _is_id(value: Any) -> TypeGuard[int | str]:
    """Whether it may be an image's id; JSON's true is none, though it equals 1 here."""
    return isinstance(value, int | str) and not isinstance(value, bool)


def _called(record: dict[str, Any], order: int) -> str:
    """What a record is called: its id, or its place in the list, from 0 on, where it has none."""
    number = record.get("id")
    return str(number) if _is_id(number) else f"at place {order}"


def _orphans(file: str, images: list[dict[str, Any]], captions: list[dict[str, Any]]) -> Iterator[LeftOut]:
    """The captions of images that the same file does not list."""
    known = {number for image in images if _is_id(number := image.get("id"))}
    for place, caption in enumerate(captions):
        number = caption.get("image_id")
        if not _is_id(number) or number not in known:
            yield LeftOut(f"{file}: caption {_called(caption, place)}", ORPHAN, image=False)


def _place(name: str, split: str, folder: str, tree: Tree) -> str:
    """Where the image is: the first of the usual places that has it, else COCO's own.

    Raises:
        ValueError: it is not below the root.
    """
    usual = (place_below(tree.root, place, name) for place in (split, f"images/{split}", "images", folder, "."))
    places = [place for place in usual if place is not None]
    found = (place for place in places if tree.place_of(place) in tree.known)
    if not places:
        raise ValueError(f"file_name {name} leaves the data set")
    return next(found, places[0])
