"""JourneyDB's layout on disk: annotations as JSON lines, pictures in numbered folders."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcm_distill.errors import UserError

ANNOTATIONS = "data/train/train_anno_realease_repath.jsonl"  # spelt as published
IMAGES = "data/train/imgs"


@dataclass(frozen=True)
class Annotation:
    """One annotated picture: where it lies below the data set's root, and its caption."""

    sample_id: str
    path: str
    caption: str


@dataclass(frozen=True)
class BadAnnotation:
    """A line that is no annotation, and why."""

    source: str
    error: str


def read_annotations(root: Path) -> Iterator[Annotation | BadAnnotation]:
    """Every line of the annotation file, in order.

    Raises:
        UserError: there is no annotation file below `root`.
    """
    path = root / ANNOTATIONS
    if not path.is_file():
        raise UserError(f"{path} is missing: set data.root to the folder that holds JourneyDB's `data`")
    seen: set[str] = set()
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            source = f"{ANNOTATIONS}:{number}"
            try:
                annotation = _parse(line)
            except ValueError as error:
                yield BadAnnotation(source, f"malformed annotation: {error}")
                continue
            if annotation.sample_id in seen:
                yield BadAnnotation(source, f"duplicate picture {annotation.sample_id}")
                continue
            seen.add(annotation.sample_id)
            yield annotation


def _parse(line: bytes) -> Annotation:
    try:
        record: Any = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    path, prompt = record.get("img_path"), record.get("prompt")
    if not isinstance(path, str) or not path:
        raise ValueError("no img_path")
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError("no prompt")
    if ".." in Path(path).parts or Path(path).is_absolute():
        raise ValueError(f"img_path {path} leaves the data set")
    return Annotation(Path(path).stem, f"{IMAGES}/{Path(path).as_posix()}", prompt.strip())
