"""A folder of pictures with `metadata.jsonl` beside them, as the hub's `imagefolder` has it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from lcm_distill.data.captions import choose_caption
from lcm_distill.data.files import leaves, read_files
from lcm_distill.data.records import Annotation, BadAnnotation, UnusablePicture
from lcm_distill.errors import UserError

METADATA = "metadata.jsonl"


class PictureFolder:
    """Pictures named by `file_name` in the `metadata.jsonl` files below a folder.

    Args:
        captions: fields that captions come from, with their shares.
    """

    def __init__(self, root: Path, captions: Mapping[str, float]) -> None:
        self.root, self.captions = root, captions

    def annotations(self) -> Iterator[Annotation | BadAnnotation]:
        """Every line of every `metadata.jsonl`.

        Raises:
            UserError: there is none below the root.
        """
        found = sorted(self.root.rglob(METADATA))
        if not found:
            raise UserError(f"{self.root} holds no {METADATA}: set data.root to a folder that does")
        for path in found:
            folder = path.parent.relative_to(self.root)
            with path.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    try:
                        yield self._parse(line, PurePosixPath(folder.as_posix()))
                    except ValueError as error:
                        yield BadAnnotation(f"{folder / METADATA}:{number}", f"malformed annotation: {error}")

    def read(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | UnusablePicture]]:
        """Pictures in the order asked for."""
        return read_files(self.root, paths)

    def holder(self, path: str) -> Path:
        """The picture."""
        return self.root / path

    def _parse(self, line: bytes, folder: PurePosixPath) -> Annotation:
        record = json.loads(line)
        name = record.get("file_name") if isinstance(record, dict) else None
        if not isinstance(name, str) or not name:
            raise ValueError("no file_name")
        if leaves(name):
            raise ValueError(f"file_name {name} leaves the data set")
        path = str(folder / name)
        return Annotation(path, path, choose_caption(record, self.captions, path))
