"""A folder of images with `metadata.jsonl`, as the hub's `imagefolder` has it, or each with a text file beside it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lcm_distill.core.errors import UserError
from lcm_distill.data.sources.captions import TEXTS, choose_caption, read_fields
from lcm_distill.data.sources.files import IMAGES, leaves, read_files
from lcm_distill.data.sources.interface import Annotation, BadAnnotation, UnusableImage

METADATA = "metadata.jsonl"


class ImageFolder:
    """Images named by `file_name` in the `metadata.jsonl` files below a folder.

    Where there are none, all images below it: what an image shows is said by the file beside it that has its name
    and ends in `.txt` (the field `text`) or `.json`.

    Args:
        captions: fields that captions come from, with their shares.
    """

    def __init__(self, root: Path, captions: Mapping[str, float]) -> None:
        self.root, self.captions = root, captions

    def annotations(self) -> Iterator[Annotation | BadAnnotation]:
        """Every line of every `metadata.jsonl`, or every image.

        Raises:
            UserError: there is neither below the root.
        """
        found = sorted(self.root.rglob(METADATA))
        for path in found:
            yield from self._lines_of(path)
        if found:
            return
        images = sorted(path for path in self.root.rglob("*") if path.suffix.lower() in IMAGES)
        if not images:
            raise UserError(f"{self.root} holds no {METADATA} and no images: set data.root to a folder that does")
        for image in images:
            yield self._beside(image)

    def read(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
        """Images in the order asked for."""
        return read_files(self.root, paths)

    def holder(self, path: str) -> Path:
        """The image."""
        return self.root / path

    def _lines_of(self, path: Path) -> Iterator[Annotation | BadAnnotation]:
        folder = path.parent.relative_to(self.root)
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    yield self._parse(line, PurePosixPath(folder.as_posix()))
                except ValueError as error:
                    yield BadAnnotation(f"{folder / METADATA}:{number}", f"malformed annotation: {error}")

    def _beside(self, image: Path) -> Annotation | BadAnnotation:
        path = image.relative_to(self.root).as_posix()
        files = [image.with_suffix(suffix) for suffix in TEXTS if image.with_suffix(suffix).is_file()]
        record: dict[str, Any] = {}
        for file in files:
            record |= read_fields(file.suffix, file.read_bytes(), "text")
        try:
            return Annotation(path, path, choose_caption(record, self.captions, path))
        except ValueError as error:
            return BadAnnotation(path, f"malformed annotation: {error}")

    def _parse(self, line: bytes, folder: PurePosixPath) -> Annotation:
        record = json.loads(line)
        name = record.get("file_name") if isinstance(record, dict) else None
        if not isinstance(name, str) or not name:
            raise ValueError("no file_name")
        if leaves(name):
            raise ValueError(f"file_name {name} leaves the data set")
        path = str(folder / name)
        return Annotation(path, path, choose_caption(record, self.captions, path))
