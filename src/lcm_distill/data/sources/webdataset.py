"""WebDataset: tar archives with images and, under the same key, captions as `key.txt` or `key.json`."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from lcm_distill.core.errors import UserError, one_line
from lcm_distill.core.regular_files import is_regular
from lcm_distill.data.sources.captions import Captions, NoText, Texts
from lcm_distill.data.sources.file_tree import (
    ALL_ARCHIVES,
    ARCHIVES,
    NO_SUFFIX,
    OTHER_ARCHIVES,
    UNREAD_ARCHIVE,
    is_hidden,
    is_image,
    not_named,
    not_read,
    unread_format,
    walk,
)
from lcm_distill.data.sources.image_files import leaves_root
from lcm_distill.data.sources.interface import AGAIN, HIDDEN, ORPHAN, BadAnnotation, LeftOut, Record
from lcm_distill.formats.images import IMAGE_SUFFIXES, MARKS, OTHER_IMAGE_SUFFIXES, UnusableImage, begins_as_image
from lcm_distill.formats.sidecars import Sidecars, sidecars_of
from lcm_distill.formats.tars import DamagedArchive, UncheckedArchive, check_members, read_checked, stream_members
from lcm_distill.formats.text import MAX_TEXT_BYTES
from lcm_distill.pipeline.prefetch import one_ahead

MEMBER_SUFFIXES = (*IMAGE_SUFFIXES, *OTHER_IMAGE_SUFFIXES, ".img")
"""Suffixes of images in archives, in lower case."""
WHOLE_NAMES = (".jfif", ".jpe", ".apng", *OTHER_IMAGE_SUFFIXES)
"""Suffixes of images whose identifier is the whole name, and which change none that caches have of the others."""

_ARCHIVE = re.compile("(?:" + "|".join(map(re.escape, ARCHIVES)) + ")/", re.IGNORECASE)


class WebDataset:
    """All archives (`ARCHIVES`) below a folder.

    The fields of a record are those of its `.json` file, and `txt` for its file of text. An image and a caption belong
    together if their names differ in the suffix only, or the caption's begins with the image's whole name, else if they
    agree up to the first dot of the file's own name: `a/7.left.jpg` takes `a/7.left.txt`, or `a/7.left.jpg.txt`, or
    `a/7.txt`. Of members of the same name the last one counts, as when they are extracted. JSON files beside an archive
    (`sidecars`) give further fields by an image's name without suffix.

    Args:
        captions: fields that captions come from, and suffixes of the files.
    """

    def __init__(self, root: Path, captions: Captions) -> None:
        self.root, self.captions = root, captions

    def annotations(self) -> Iterator[Record]:
        """Every image of every archive.

        Raises:
            UserError: there is no archive below the root.
        """
        tree = walk(self.root, lambda path: is_image(path) or path.lower().endswith(ALL_ARCHIVES))
        archives = [path for path in tree.files if path.lower().endswith(ARCHIVES)]
        if not archives:
            raise UserError(
                f"{self.root} holds no {' or '.join(ARCHIVES)} archive: set data.root to a WebDataset's folder"
            )
        yield from tree.bad
        others = [path for path in tree.files if path.lower().endswith(OTHER_ARCHIVES)]
        files = sidecars_of({_stem_of(path) for path in (*archives, *others)}, tree.files)
        for archive in archives:
            sidecars = Sidecars()
            for path in files.get(_stem_of(archive), []):
                try:
                    sidecars.add(self.root, path)
                except (OSError, ValueError) as error:
                    yield BadAnnotation(path, f"damaged file: {one_line(error)}")
            yield from self._annotations_of(archive, sidecars)
        yield from not_read(tree, OTHER_ARCHIVES, UNREAD_ARCHIVE)
        yield from not_named(tree, {}, "not in an archive")

    def read(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
        """Images streamed from their archives. A path is `archive.tar/member`, or `archive.tar/member//2`.

        A compressed archive is read twice, as only its end tells whether it is intact: for the first time while the
        one before is read for the second.
        """
        by_archive = (
            (self.root / archive, {_member(archive, path): path for path in members})
            for archive, members in groupby(paths, key=self._archive_of)
        )
        for _, checked in one_ahead(lambda wanted, stopped: check_members(*wanted, stopped), by_archive):
            yield from read_checked(checked)

    def file_of(self, path: str) -> Path:
        """The archive."""
        return self.root / self._archive_of(path)

    def _archive_of(self, path: str) -> str:
        """The part of a path that is the archive; folders and members may be called as archives are."""
        found = [path[: match.end() - 1] for match in _ARCHIVE.finditer(path)]
        return next((place for place in found[:-1] if is_regular(self.root / place)), found[-1]) if found else path

    def _annotations_of(self, archive: str, sidecars: Sidecars) -> Iterator[Record]:
        content = _Content(self.captions)
        try:
            for name, text in stream_members(self.root / archive, content.wants):
                content.add_text(name, text)
        except (DamagedArchive, FileNotFoundError) as error:
            yield BadAnnotation(archive, f"damaged archive: {error}")
            if isinstance(error, UncheckedArchive):
                content = self._sound_content(archive, error)
            content.damage = error
        alone = Counter(stem for stem, suffix in map(_split, content.images) if suffix not in WHOLE_NAMES)
        unfinished = content.unfinished(lambda name: sidecars.of(_split(name)[0]) is not None)
        for name, number in content.images.items():
            path = f"{archive}/{name}" + (f"{AGAIN}{number}" if number > 1 else "")
            stem, suffix = _split(name)
            sample_id = f"{archive}/{stem if alone[stem] == 1 and suffix not in WHOLE_NAMES else name}"
            if leaves_root(name):
                yield BadAnnotation(path, "malformed annotation: its name leads out of the archive", path)
            elif is_hidden(name):
                yield LeftOut(path, HIDDEN)
            elif (flaw := unread_format(name)) is not None:
                yield BadAnnotation(path, flaw, path)
            else:
                lost = content.damage if name in unfinished else None
                yield from self._annotations(content.texts_of(name), sidecars.of(stem), sample_id, path, lost)
        for name in content.without_suffix:
            yield LeftOut(f"{archive}/{name}", NO_SUFFIX)
        lone = [f"{archive}/{name}" for name in content.orphans()]
        for source in (*lone, *sidecars.orphans(_split(name)[0] for name in content.images)):
            yield LeftOut(source, ORPHAN, image=False)

    def _sound_content(self, archive: str, damage: UncheckedArchive) -> "_Content":
        """What precedes the damage of an archive."""
        content = _Content(self.captions)
        with suppress(DamagedArchive, FileNotFoundError):
            for name, text in stream_members(self.root / archive, content.wants, damage) if damage.sound else ():
                content.add_text(name, text)
        return content

    def _annotations(
        self,
        texts: tuple[str, Texts],
        known: Mapping[str, Any] | None,
        sample_id: str,
        path: str,
        lost: Exception | None,
    ) -> Iterator[Record]:
        """The samples of an image.

        Args:
            texts: as of `_Content.texts_of`. lost: the damage of the archive that its caption may be in.
        """
        key, files = texts
        try:
            yield from self.captions.annotations_of_files(sample_id, path, files, "txt", key, known)
        except ValueError as error:
            reason = (
                f"damaged archive: {lost}" if lost and isinstance(error, NoText) else f"malformed annotation: {error}"
            )
            yield BadAnnotation(path, reason, path)


@dataclass
class _Content:
    """What an archive holds.

    Attributes:
        images: how many members have the name of an image, by name.
        texts: the last caption file by the name without suffix of its image, and suffix.
        without_suffix: names of members of which only their content says that they are images.
        names: of the caption files.
        damage: why it could not be read to its end; None: it could.
    """

    captions: Captions
    images: Counter[str] = field(default_factory=Counter[str])
    texts: dict[tuple[str, str], bytes | Exception] = field(default_factory=dict[tuple[str, str], bytes | Exception])
    without_suffix: dict[str, None] = field(default_factory=dict[str, None])
    names: dict[str, None] = field(default_factory=dict[str, None])
    damage: Exception | None = None

    def wants(self, name: str) -> bool:
        """Count an image; whether the content of a member is wanted, of a caption file or one without a suffix."""
        if _split(name)[1] in MEMBER_SUFFIXES:
            self.images[name] += 1
        return any(self.captions.split(name)) or not _split(name)[1]

    def add_text(self, name: str, content: bytes | UnusableImage) -> None:
        """Keep a caption file, or the name of an image."""
        if not any(self.captions.split(name)):
            if isinstance(content, bytes) and begins_as_image(content[:MARKS]) and not is_hidden(name):
                self.without_suffix[name] = None
            return
        if not isinstance(content, Exception) and len(content) > MAX_TEXT_BYTES:
            content = UnusableImage(f"more than {MAX_TEXT_BYTES:,} bytes")
        self.names[name] = None
        self.texts |= dict.fromkeys(self.captions.split(name), content)

    def orphans(self) -> list[str]:
        """Caption files that no image has."""
        keys = {key for name in self.images for key in _keys(name)}
        return [
            name
            for name in self.names
            if keys.isdisjoint(stem for stem, _ in self.captions.split(name)) and not is_hidden(name)
        ]

    def unfinished(self, is_known: Callable[[str], bool]) -> set[str]:
        """The images of a damaged archive whose texts may be in what is lost: no later one has any.

        Args:
            is_known: whether there is a text of an image elsewhere.
        """
        names = list(self.images) if self.damage else []
        told = [place for place, name in enumerate(names) if self.texts_of(name)[1] or is_known(name)]
        return set(names[told[-1] if told else 0 :])

    def texts_of(self, image: str) -> tuple[str, Texts]:
        """The name that the captions of an image have, and suffix and content of each caption file."""
        for key in _keys(image):
            suffixes = (suffix for suffix in self.captions.suffixes if (key, suffix) in self.texts)
            if found := [(suffix, self.texts[key, suffix]) for suffix in suffixes]:
                return PurePosixPath(_split(image)[0] if key == image else key).name, found
        return PurePosixPath(_split(image)[0]).name, []


def _stem_of(archive: str) -> str:
    """The path of an archive without its suffix, of which `.tar.gz` is one."""
    suffixes = (suffix for suffix in (*ARCHIVES, *OTHER_ARCHIVES) if archive.lower().endswith(suffix))
    return archive[: -max(map(len, suffixes))]


def _keys(image: str) -> tuple[str, str, str]:
    """The names, without suffix, that the captions of an image may have."""
    stem = _split(image)[0]
    path = PurePosixPath(stem)
    return stem, image, str(path.with_name(path.name.partition(".")[0] or path.name))


def _split(name: str) -> tuple[str, str]:
    """A member's name without its suffix, and the suffix in lower case."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix), suffix.lower()


def _member(archive: str, path: str) -> tuple[str, int]:
    """Name of a member, and which one of that name it is."""
    name, _, number = path.removeprefix(f"{archive}/").partition(AGAIN)
    return name, int(number or 1)
