"""Every file below a folder of unknown origin: links are followed, loops and hidden files are told apart."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from lcm_distill.core.regular_files import open_regular
from lcm_distill.data.sources.interface import DUPLICATE, HIDDEN, UNNAMED, BadAnnotation, LeftOut
from lcm_distill.formats.images import IMAGE_SUFFIXES, MARKS, OTHER_IMAGE_SUFFIXES, begins_as_image

HIDDEN_FOLDERS = ("__MACOSX", "@eaDir")
"""Folders that archivers and disk stations add, beside those whose name begins with a dot."""


ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
"""Suffixes of archives that can be read, in lower case. What one is compressed with, if at all, its content tells."""
OTHER_ARCHIVES = (".tar.zst", ".tzst", ".tar.lz4", ".tar.lzma", ".tar.z", ".zip", ".7z", ".rar")
"""Suffixes of archives of other kinds, in lower case."""
ALL_ARCHIVES = (*ARCHIVES, *OTHER_ARCHIVES)
UNREAD_ARCHIVE = "archive of a kind that is not read"
NO_SUFFIX = "image without a suffix"
"""Reason of a `LeftOut` whose content alone says that it is an image."""


class Link(str):
    """The path of a file that is a link."""

    __slots__ = ()


@dataclass
class Tree:
    """What lies below a folder. Paths are relative to it, with `/`, in order of their parts.

    Attributes:
        root: the folder.
        files: everything that is no folder and not hidden, once each.
        links: further names of files that would be part of a data set, with the one among `files`.
        without_suffix: images of which nothing but their content says so, and to which no link leads.
        left_out: hidden files that would be part of a data set, and links to folders, archives and tables that are read
            already.
        bad: folders that cannot be read.
    """

    root: Path
    files: list[str] = field(default_factory=list[str])
    links: dict[str, str] = field(default_factory=dict[str, str])
    without_suffix: list[str] = field(default_factory=list[str])
    left_out: list[LeftOut] = field(default_factory=list[LeftOut])
    bad: list[BadAnnotation] = field(default_factory=list[BadAnnotation])

    @property
    def images(self) -> list[str]:
        """The files that are images by their suffix."""
        return [path for path in self.files if is_image(path)]

    def place_of(self, path: str) -> str:
        """The path among `files` of the file at a path that may lead through a link; itself if there is none."""
        listed = path if path in self.known or path in self.links else self.folders.place_of(path)
        return self.links.get(listed, listed)

    def names_of(self, path: str) -> list[str]:
        """A path among `files`, and the links to it."""
        return [path, *self._links_to.get(path, [])]

    @cached_property
    def known(self) -> set[str]:
        """`files`, to look one up."""
        return set(self.files)

    @cached_property
    def _links_to(self) -> dict[str, list[str]]:
        names = dict[str, list[str]]()
        for link, path in self.links.items():
            names.setdefault(path, []).append(link)
        return names

    @cached_property
    def folders(self) -> "Folders":
        """The folders of `files`."""
        return Folders(self.root, {path.rpartition("/")[0] for path in self.files})


class Folders:
    """Folders below a root, found again by the links that lead to them.

    Args:
        paths: of the folders, each of which is listed once.
    """

    def __init__(self, root: Path, paths: Iterable[str]) -> None:
        self.root, self._paths = root, set(paths)
        self._places = dict[str, str]()

    def __contains__(self, folder: str) -> bool:
        """Whether a folder is one of `paths`."""
        return folder in self._paths

    def place_of(self, path: str) -> str:
        """The path of a file in one of the folders, for one that may lead there through links; else the same path."""
        folder, slash, name = path.rpartition("/")
        if folder in self._paths:
            return path
        if folder not in self._places:
            self._places[folder] = self._by_identity.get(_identity(self.root / folder), folder)
        return f"{self._places[folder]}{slash}{name}".removeprefix("/")

    @cached_property
    def _by_identity(self) -> dict[tuple[int, int] | None, str]:
        found = {_identity(self.root / path): path for path in self._paths}
        return {identity: path for identity, path in found.items() if identity}


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        state = folder.stat()
    except (OSError, ValueError):
        return None
    return state.st_dev, state.st_ino


def is_image(path: str) -> bool:
    """Whether a path has the suffix of an image file, of whatever format."""
    return PurePosixPath(path).suffix.lower() in (*IMAGE_SUFFIXES, *OTHER_IMAGE_SUFFIXES)


def unread_format(path: str) -> str | None:
    """Why an image is not decoded whose suffix is that of another format; None if it is not."""
    suffix = PurePosixPath(path).suffix.lower()
    return f"{suffix} is not decoded: convert it to PNG or JPEG" if suffix in OTHER_IMAGE_SUFFIXES else None


def walk(root: Path, counts: Callable[[str], bool] = is_image) -> Tree:
    """Everything below a folder; nothing where there is no such folder.

    Args:
        counts: whether a file would be part of the data set, were it not hidden.
    """
    tree = Tree(root)
    for found in entries(root, counts):
        match found:
            case str():
                tree.files.append(found)
            case LeftOut():
                tree.left_out.append(found)
            case BadAnnotation():
                tree.bad.append(found)
    tree.files.sort(key=lambda path: path.split("/"))
    links = [path for path in tree.files if isinstance(path, Link) and counts(path)]
    tree.links, targets = further_names(root, links, tree.folders, counts)
    tree.files = [path for path in tree.files if path not in tree.links]
    tree.without_suffix = [path for path in tree.files if looks_like_image(root, path, targets)]
    again = (link for link in tree.links if not is_image(link))
    tree.left_out += [LeftOut(link, "link to a file that is read already", image=False) for link in again]
    tree.left_out.sort(key=lambda record: record.source)
    return tree


def further_names(
    root: Path, links: Iterable[str], folders: "Folders", counts: Callable[[str], bool] = is_image
) -> tuple[dict[str, str], set[str]]:
    """The links to files that are listed by another name: the file's own, else that of the first link to it.

    Args:
        folders: that are listed. counts: as of `walk`.

    Returns:
        The other name by link, and where on disk all the links lead.
    """
    first, found = dict[str, str](), dict[str, str]()
    for link in links:
        target = os.path.realpath(root / link)
        if not Path(target).is_file():
            continue
        place = folders.place_of(target)
        listed = place.rpartition("/")[0] in folders and counts(place) and not is_hidden(place)
        first.setdefault(target, place if listed else link)
        if first[target] != link:
            found[link] = first[target]
    return found, set(first)


def looks_like_image(root: Path, path: str, targets: Collection[str] = ()) -> bool:
    """Whether a file without a suffix begins as an image does.

    Args:
        targets: files on disk that are not looked at.
    """
    if PurePosixPath(path).suffix or (targets and os.path.realpath(root / path) in targets):
        return False
    try:
        with open_regular(root / path) as file:
            return begins_as_image(file.read(MARKS))
    except (OSError, ValueError):
        return False


def entries(root: Path, counts: Callable[[str], bool] = is_image) -> Iterator[str | LeftOut | BadAnnotation]:
    """Each file below a folder, or why it is left out or what cannot be read, in an order that does not change.

    Nothing is kept but the folders, so there may be millions of files. Each folder is read once, at its own place if it
    has one below `root`, else where the first link to it is: links that lead back to a folder above end there. Hidden
    folders come last, so that a link that is not hidden shows what it leads to.

    Args:
        counts: as of `walk`.
    """
    seen, links, hidden = set[tuple[int, int]](), [""], list[str]()
    while links or hidden:
        yield from _own_entries(root, (links or hidden).pop(0), seen, (links, hidden), counts)


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder that it lies in, is hidden or an archiver's own: `._a.jpg`, `__MACOSX/a.jpg`."""
    parts = PurePosixPath(path).parts
    return any((part.startswith(".") and part != "..") or part in HIDDEN_FOLDERS for part in parts)


def _own_entries(
    root: Path,
    start: str,
    seen: set[tuple[int, int]],
    later: tuple[list[str], list[str]],
    counts: Callable[[str], bool],
) -> Iterator[str | LeftOut | BadAnnotation]:
    """What lies below `start` itself; links to folders, and hidden folders, are added to the lists of `later`."""
    waiting, (links, hidden) = [start], later
    while waiting:
        folder = waiting.pop()
        try:
            state = (root / folder).stat()
            if (state.st_dev, state.st_ino) in seen:
                if not is_hidden(folder):
                    yield LeftOut(folder, "link to a folder that is read already", image=False)
                continue
            seen.add((state.st_dev, state.st_ino))
            found = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            yield BadAnnotation(folder or ".", f"unreadable folder: {error.strerror}")
            continue
        for path, entry in ((f"{folder}/{entry.name}".lstrip("/"), entry) for entry in found):
            if _is_folder(entry):
                first = is_hidden(path) and not is_hidden(folder)
                (hidden if first else links if entry.is_symlink() else waiting).append(path)
            elif not is_hidden(path):
                yield Link(path) if entry.is_symlink() else path
            elif counts(path):
                yield LeftOut(path, HIDDEN, image=is_image(path))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def not_read(tree: Tree, suffixes: tuple[str, ...], reason: str) -> Iterator[LeftOut]:
    """The files of a tree with one of these suffixes, in lower case, which may hold images that are not read."""
    return (LeftOut(path, reason, image=False) for path in tree.files if path.lower().endswith(suffixes))


def unnamed_member(path: str) -> LeftOut:
    """An image in an archive that no annotation names."""
    return LeftOut(path, HIDDEN if is_hidden(path) else UNNAMED)


def not_named(tree: Tree, named: Mapping[str, str], reason: str) -> Iterator[LeftOut | BadAnnotation]:
    """The image files of a tree that no annotation is about, after those that the tree leaves out itself.

    Args:
        named: by path among the tree's files, the name that the first annotation about it has.
    """
    yield from (record for record in tree.left_out if record.source not in named)
    yield from (LeftOut(path, NO_SUFFIX) for path in tree.without_suffix if path not in named)
    for path in (*tree.images, *filter(is_image, tree.links)):
        first = named.get(tree.place_of(path))
        if first is None:
            yield LeftOut(path, reason)
        elif first != path and (path in tree.links or first in tree.links):
            yield BadAnnotation(path, DUPLICATE, path)
