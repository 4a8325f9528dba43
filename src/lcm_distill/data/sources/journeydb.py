"""JourneyDB as it is downloaded: numbered archives, extracted or not, and one annotation file."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from io import BufferedReader
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import cast

from lcm_distill.core.errors import DataError, UserError
from lcm_distill.core.regular_files import is_regular, open_regular
from lcm_distill.data.sources.captions import Captions
from lcm_distill.data.sources.file_tree import (
    NO_SUFFIX,
    Folders,
    Link,
    entries,
    further_names,
    is_image,
    looks_like_image,
)
from lcm_distill.data.sources.identifiers import Identifiers
from lcm_distill.data.sources.image_files import is_broken_off, place_below, read_files
from lcm_distill.data.sources.interface import DUPLICATE, UNNAMED, BadAnnotation, LeftOut, Listing, Record
from lcm_distill.formats.images import UnusableImage
from lcm_distill.formats.tables import Fields, MalformedRecord, numbered_lines
from lcm_distill.formats.tars import (
    DAMAGE,
    READ,
    Checked,
    DamagedArchive,
    check_last_members,
    open_archive,
    read_checked,
    require_end,
)
from lcm_distill.formats.text import name_in, read_lines
from lcm_distill.pipeline.prefetch import one_ahead

ANNOTATIONS = "data/train/train_anno_realease_repath.jsonl"  # spelt as published
IMAGES = "data/train/imgs"
ARCHIVE = ".tgz"
"""Suffix of the archives in `IMAGES`, each of which holds one folder."""


class JourneyDB:
    """The training part of JourneyDB.

    Args:
        root: folder that contains `data/train`.
        archives: numbers of the archives that are read; None reads all.
        captions: annotation fields that captions come from.
    """

    def __init__(self, root: Path, archives: frozenset[int] | None, captions: Captions) -> None:
        self.root, self.archives, self.captions = root, archives, captions

    def annotations(self) -> Iterator[Record]:
        """Every line of the annotation file about an image in the chosen archives.

        Raises:
            UserError: there is no annotation file below the root.
            DataError: its archive is damaged, or it is so damaged that its lines cannot be told.
        """
        named, identifiers = _Named(self.root / IMAGES), Identifiers()
        with closing(_lines(self.root)) as lines:
            for number, fields in numbered_lines(lines):
                path = None
                try:
                    image = self._image_path(fields)
                    if self.archives is not None and not self._chosen(image):
                        continue
                    name, path = image.stem, f"{IMAGES}/{image}"
                    if (first := named.add(str(image))) is not None:
                        yield BadAnnotation(f"{IMAGES}/{first}", DUPLICATE, f"{IMAGES}/{first}")
                        continue
                    if isinstance(fields, ValueError):
                        raise fields
                    records = self.captions.annotations(identifiers.of(name, path), path, fields)
                    identifiers.take(name, path)
                    yield from records
                except ValueError as error:
                    yield BadAnnotation(f"{ANNOTATIONS}:{number}", f"malformed annotation: {error}", path)
        yield from named.left_out(self.archives)

    def read(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
        """As `read_listing`."""
        return self.read_listing(paths, lambda _: None)

    def read_listing(
        self, paths: Iterable[str], found: Callable[[Listing], None]
    ) -> Iterator[tuple[str, bytes | UnusableImage]]:
        """Images from extracted folders if they are there and whole, else streamed from `NNN.tgz`.

        An archive is read twice: only its end tells which member of a name is the last, and whether it is intact. It
        is read for the first time while the one before is read for the second.
        """
        for images, checked in one_ahead(_Images.check, self._by_archive(paths)):
            if images.packed:
                found(self._listing(checked))
            yield from read_files(self.root, images.extracted)
            for path, content in read_checked(checked):
                broken_off = isinstance(content, UnusableImage) and is_regular(self.root / path)
                yield from read_files(self.root, [path]) if broken_off else [(path, content)]

    def _by_archive(self, paths: Iterable[str]) -> Iterator["_Images"]:
        for archive, same in groupby(paths, key=self._archive):
            members = list(same)
            packed = set(filter(self._is_lacking, members)) if is_regular(archive) else set[str]()
            extracted = [path for path in members if path not in packed]
            yield _Images(archive, extracted, {_member(path): path for path in members if path in packed})

    def archives_on_disk(self) -> list[Path]:
        """All `NNN.tgz`."""
        return sorted((self.root / IMAGES).glob(f"[!.]*{ARCHIVE}"))

    def listing(self, archive: Path) -> Listing:
        """The images in an archive; of a damaged one, those before the damage."""
        return self._listing(check_last_members(archive, {}))

    def _listing(self, checked: Checked) -> Listing:
        images = frozenset(f"{IMAGES}/{name}" for name in checked.names if is_image(name))
        return Listing(checked.archive.relative_to(self.root).as_posix(), images, checked.reason)

    def file_of(self, path: str) -> Path:
        """The image, or `NNN.tgz` where it is not extracted from the archive, or not as a whole."""
        archive = self._archive(path)
        return archive if is_regular(archive) and self._is_lacking(path) else self.root / path

    def _is_lacking(self, path: str) -> bool:
        """Whether an image is no file that can be used, so that its archive is asked for it."""
        return not is_regular(self.root / path) or is_broken_off(self.root / path)

    def _archive(self, path: str) -> Path:
        return self.root / IMAGES / f"{_folder(_member(path))}{ARCHIVE}"

    def _image_path(self, record: Fields) -> PurePosixPath:
        """The path of the image that a record is about, or seems to be, below the folder of archives."""
        if isinstance(record, ValueError):
            texts = record.texts_of("img_path") if isinstance(record, MalformedRecord) else []
            name = next((text for text in texts if is_image(text)), None)
            if name is None:
                raise record
        else:
            name = name_in(record.get("img_path"), "img_path")
        path = place_below(self.root / IMAGES, "", name)
        if path is None:
            raise ValueError(f"img_path {name} leaves {IMAGES}")
        return PurePosixPath(path)

    def _chosen(self, image: PurePosixPath) -> bool:
        folder = _folder(str(image))
        return folder.isdecimal() and int(folder) in (self.archives or ())


@dataclass(frozen=True)
class _Images:
    """Images of one folder.

    Attributes:
        extracted: paths of those that are files.
        packed: paths of those that are in the archive, by their names in it.
    """

    archive: Path
    extracted: list[str]
    packed: Mapping[str, str]

    def check(self, stopped: Callable[[], bool]) -> Checked:
        if not self.packed:
            return Checked(self.archive, {})
        return check_last_members(self.archive, self.packed, stopped)


def _member(path: str) -> str:
    """The name of an image in its archive: `NNN/<uuid>.<suffix>`."""
    return path.removeprefix(f"{IMAGES}/")


def _folder(member: str) -> str:
    """The folder that is one archive: `NNN`."""
    return member.partition("/")[0]


class _Named:
    """The images that annotations name in folders that exist; nothing is kept of those that are in archives.

    Of a name its hash is kept: there may be millions.
    """

    def __init__(self, images: Path) -> None:
        self.images = images
        folders, links = set[str](), list[Link]()
        for path in (entry for entry in entries(images) if isinstance(entry, str) and is_image(entry)):
            folders.add(path.rpartition("/")[0])
            links += [path] if isinstance(path, Link) else []
        self.folders = Folders(images, folders)
        self.links, self.targets = further_names(images, links, self.folders)
        self.hashes, self.archives = set[int](), set[str]()
        self.through_links = dict[str, str]()

    def add(self, path: str) -> str | None:
        """Keep a path; returns another one of the same file that was kept before, where one leads through a link."""
        self.archives.add(f"{_folder(path)}{ARCHIVE}")
        listed = self.folders.place_of(path)
        place = self.links.get(listed, listed)
        if place != path or place in self.through_links:
            first = self.through_links.setdefault(place, place if hash(place) in self.hashes else path)
            self.hashes.add(hash(place))
            return first if first != path else None
        if place.rpartition("/")[0] in self.folders:
            self.hashes.add(hash(path))
        return None

    def left_out(self, archives: frozenset[int] | None) -> Iterator[Record]:
        """Folders that cannot be read, and images in the chosen folders that no annotation names by their names.

        Also archives that none does: nothing is read from these.
        """
        for entry in entries(self.images):
            match entry:
                case BadAnnotation():
                    yield entry
                case LeftOut():
                    yield from self._left_out(entry, archives)
                case str() if is_image(entry):
                    yield from self._left_out(LeftOut(entry, UNNAMED), archives)
                case str() if looks_like_image(self.images, entry, self.targets):
                    yield from self._left_out(LeftOut(entry, NO_SUFFIX), archives)
                case str() if entry.endswith(ARCHIVE) and "/" not in entry and entry not in self.archives:
                    yield from self._left_out(LeftOut(entry, f"archive {UNNAMED}", image=False), archives)
                case _:
                    pass

    def _left_out(self, found: LeftOut, archives: frozenset[int] | None) -> Iterator[Record]:
        folder = _folder(found.source).removesuffix(ARCHIVE)
        chosen = archives is None or (folder.isdecimal() and int(folder) in archives)
        place, path = self.links.get(found.source, found.source), f"{IMAGES}/{found.source}"
        first = self.through_links.get(place, place)
        if chosen and hash(place) not in self.hashes:
            yield replace(found, source=path)
        elif chosen and first != found.source and (first in self.links or found.source in self.links):
            yield BadAnnotation(path, DUPLICATE, path)


def _lines(root: Path) -> Generator[bytes | ValueError]:
    """The lines of the annotation file, from its archive if that is not extracted, as `read_lines` gives them."""
    plain, packed = root / ANNOTATIONS, root / f"{ANNOTATIONS}.tgz"
    if plain.is_file():
        try:
            with open_regular(plain) as file:
                yield from read_lines(file)
        except ValueError as error:
            raise DataError(f"{plain} is damaged ({error}): download it again") from error
    elif packed.is_file():
        try:
            with open_archive(packed) as archive:
                files = (archive.extractfile(member) for member in archive if member.isfile())
                lines = next(files, None)
                if lines is None:
                    raise DataError(f"{packed} holds no file: download it again")
                yield from read_lines(cast(BufferedReader, lines))
                while lines.read(READ):  # what no line was made of
                    pass
                all(archive)
                require_end(archive)
        except (DamagedArchive, ValueError, *DAMAGE) as error:
            raise DataError(f"{packed} is damaged ({error}): download it again") from error
    else:
        raise UserError(f"{plain} and its .tgz are missing: set data.root to the folder that holds JourneyDB's `data`")
