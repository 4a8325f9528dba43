"""Where images of captions go: one labelled sheet, a PNG file; or a folder, for every image by itself as well."""

from pathlib import Path
from typing import Literal

from lcm_distill.core.errors import UserError
from lcm_distill.pipeline.atomic_writes import require_file_or_nothing, require_writable
from lcm_distill.pipeline.run_folder import require_foreign

FileFormat = Literal["png", "jpeg", "webp"]
"""Of single images."""
SHEET = "sheet.png"
"""In a folder of single images."""


def is_folder(out: Path) -> bool:
    """Whether a place is a folder, which is what a name without a suffix is."""
    return out.is_dir() or not (out.suffix or out.exists())


def sheet_at(out: Path) -> Path:
    """The file of the sheet."""
    return out / SHEET if is_folder(out) else out


def require_place(out: Path, file_format: FileFormat | None) -> None:
    """Refuse, before a model is opened, what must not be replaced or written, and a format of unwanted images.

    Raises:
        UserError: a run lives by the file, its suffix is that of another format, or a format is given without a folder.
        OSError: nothing can be written there.
    """
    require_foreign(out)
    sheet = sheet_at(out)
    if file_format is not None and not is_folder(out):
        raise UserError(f"--format is of single images, and --out {out} is a file: give a folder, or leave it out")
    if sheet.suffix.lower() not in (".png", ""):
        raise UserError(
            f"--out {out} would be a PNG file by another name: give {out.with_suffix('.png')}, or a folder, whose "
            "single images --format writes as png, jpeg or webp"
        )
    require_file_or_nothing(sheet)
    require_writable(sheet)
