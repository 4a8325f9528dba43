"""JourneyDB as it is downloaded: numbered archives, extracted or not, and one annotation file."""

import json
import tarfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from lcm_distill.core.errors import DataError, UserError
from lcm_distill.data.sources.captions import choose_caption
from lcm_distill.data.sources.files import group_by_parent, leaves_root, read_files
from lcm_distill.data.sources.interface import Annotation, BadAnnotation, UnusableImage
from lcm_distill.data.sources.tars import DAMAGE, read_members

ANNOTATIONS = "data/train/train_anno_realease_repath.jsonl"  # spelt as published
IMAGES = "data/train/imgs"


class JourneyDB:
    """The training part of JourneyDB.

    Args:
        root: folder that contains `data/train`.
        archives: numbers of the archives that are read; None reads all.
        captions: annotation fields that captions come from, with their weights.
    """

    def __init__(self, root: Path, archives: frozenset[int] | None, captions: Mapping[str, float]) -> None:
        self.root, self.archives, self.captions = root, archives, captions

    def annotations(self) -> Iterator[Annotation | BadAnnotation]:
        """Every line of the annotation file about an image in the chosen archives.

        Raises:
            UserError: there is no annotation file below the root.
            DataError: its archive is damaged.
        """
        with _open_lines(self.root) as lines:
            for number, line in enumerate(lines, start=1):
                source = f"{ANNOTATIONS}:{number}"
                try:
                    annotation = self._parse(line)
                except ValueError as error:
                    yield BadAnnotation(source, f"malformed annotation: {error}")
                    continue
                if annotation is not None:
                    yield annotation

    def read(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
        """Images from extracted folders if they exist, else streamed from `NNN.tgz`."""
        for _, members in group_by_parent(paths):
            file = self.file_of(members[0])
            if file.suffix == ".tgz":
                yield from read_members(file, {_member(path): path for path in members})
            else:
                yield from read_files(self.root, members)

    def file_of(self, path: str) -> Path:
        """The image, or `NNN.tgz` where the archive is not extracted."""
        folder = (self.root / path).parent
        archive = folder.with_name(f"{folder.name}.tgz")
        return archive if archive.is_file() and not folder.is_dir() else self.root / path

    def _parse(self, line: bytes) -> Annotation | None:
        """The annotation, or None if its archive is not chosen."""
        record = _json_object(line)
        path = record.get("img_path")
        if not isinstance(path, str) or not path:
            raise ValueError("no img_path")
        if leaves_root(path):
            raise ValueError(f"img_path {path} leaves the data set")
        image = PurePosixPath(path)
        if self.archives is not None and not self._chosen(image):
            return None
        caption = choose_caption(record, self.captions, image.stem)
        return Annotation(image.stem, f"{IMAGES}/{image}", caption)

    def _chosen(self, image: PurePosixPath) -> bool:
        folder = image.parent.name
        return folder.isdecimal() and int(folder) in (self.archives or ())


def _member(path: str) -> str:
    """The name of an image in its archive: `NNN/<uuid>.<suffix>`."""
    return "/".join(PurePosixPath(path).parts[-2:])


def _json_object(line: bytes) -> dict[str, Any]:
    try:
        record: Any = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    return cast(dict[str, Any], record)


@contextmanager
def _open_lines(root: Path) -> Generator[IO[bytes]]:
    """The annotation file, from its archive if that is not extracted."""
    plain, packed = root / ANNOTATIONS, root / f"{ANNOTATIONS}.tgz"
    if plain.is_file():
        with plain.open("rb") as lines:
            yield lines
    elif packed.is_file():
        try:
            with tarfile.open(packed, "r|gz") as archive:
                files = (archive.extractfile(member) for member in archive if member.isfile())
                lines = next(files, None)
                if lines is None:
                    raise DataError(f"{packed} holds no file: download it again")
                yield lines
        except DAMAGE as error:
            raise DataError(f"{packed} is damaged ({error}): download it again") from error
    else:
        raise UserError(f"{plain} and its .tgz are missing: set data.root to the folder that holds JourneyDB's `data`")
