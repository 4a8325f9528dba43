"""A folder of images with `metadata.jsonl`, as in the hub's `imagefolder` format, or with a text file for each."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, cast

from lcm_distill.core.errors import UserError
from lcm_distill.core.images import IMAGE_SUFFIXES
from lcm_distill.data.sources.captions import CAPTION_SUFFIXES, choose_caption, read_fields
from lcm_distill.data.sources.files import leaves_root, read_files
from lcm_distill.data.sources.interface import Annotation, BadAnnotation, UnusableImage

METADATA = "metadata.jsonl"


class ImageFolder:
    """Images named by `file_name` in the `metadata.jsonl` files below a folder.

    Without such files, all images below it; the caption of an image is in the file of the same name with the suffix
    `.txt` (the field `text`) or `.json`.

    Args:
        captions: fields that captions come from, with their weights.
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
        images = sorted(path for path in self.root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            raise UserError(f"{self.root} holds no {METADATA} and no images: set data.root to a folder that does")
        for image in images:
            yield self._with_caption_file(image)

    def read(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
        """Images in the order of `paths`."""
        return read_files(self.root, paths)

    def file_of(self, path: str) -> Path:
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

    def _with_caption_file(self, image: Path) -> Annotation | BadAnnotation:
        path = image.relative_to(self.root).as_posix()
        files = [image.with_suffix(suffix) for suffix in CAPTION_SUFFIXES if image.with_suffix(suffix).is_file()]
        record: dict[str, Any] = {}
        for file in files:
            record |= read_fields(file.suffix, file.read_bytes(), "text")
        try:
            return Annotation(path, path, choose_caption(record, self.captions, path))
        except ValueError as error:
            return BadAnnotation(path, f"malformed annotation: {error}")

    def _parse(self, line: bytes, folder: PurePosixPath) -> Annotation:
        record: Any = json.loads(line)
        fields = cast(dict[str, Any], record) if isinstance(record, dict) else {}
        name = fields.get("file_name")
        if not isinstance(name, str) or not name:
            raise ValueError("no file_name")
        if leaves_root(name):
            raise ValueError(f"file_name {name} leaves the data set")
        path = str(folder / name)
        return Annotation(path, path, choose_caption(fields, self.captions, path))
