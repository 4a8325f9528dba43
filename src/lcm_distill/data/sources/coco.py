"""MS-COCO: a JSON file of captions, about five for each image, and a folder of images."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from lcm_distill.core.errors import UserError
from lcm_distill.data.sources.files import leaves_root, read_files
from lcm_distill.data.sources.interface import Annotation, BadAnnotation, UnusableImage


class Coco:
    """`annotations/captions_<split>.json` and the images in `<split>/`, for each split that exists.

    The caption of an image is the first one, in order of caption id.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def annotations(self) -> Iterator[Annotation | BadAnnotation]:
        """Every image of every split.

        Raises:
            UserError: there is no caption file below the root, or it does not have the format of COCO.
        """
        found = sorted((self.root / "annotations").glob("captions_*.json"))
        if not found:
            raise UserError(f"{self.root}/annotations holds no captions_*.json: set data.root to COCO's folder")
        for path in found:
            yield from self._annotations_of(path)

    def read(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | UnusableImage]]:
        """Images in the order of `paths`."""
        return read_files(self.root, paths)

    def file_of(self, path: str) -> Path:
        """The image."""
        return self.root / path

    def _annotations_of(self, path: Path) -> Iterator[Annotation | BadAnnotation]:
        split = path.stem.removeprefix("captions_")
        try:
            content = json.loads(path.read_bytes())
            captions: dict[int, str] = {}
            for record in sorted(content["annotations"], key=lambda record: record["id"]):
                captions.setdefault(record["image_id"], record["caption"].strip())
            images = {image["id"]: image["file_name"] for image in content["images"]}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is not a file of COCO captions: {error!r}") from error
        for number, name in images.items():
            where = f"{split}/{name}"
            if leaves_root(name):
                yield BadAnnotation(where, f"malformed annotation: file_name {name} leaves the data set")
            elif not captions.get(number):
                yield BadAnnotation(where, "malformed annotation: no caption")
            else:
                yield Annotation(f"{split}/{number}", where, captions[number])
