"""Labelled grids of images. Captions are wrapped, and very long ones cut."""

from collections.abc import Collection, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN = 8
BETWEEN = 20
"""Between columns that have headings, in pixels."""
LINE = 18
"""Height of a line of text, in pixels."""
TEXT_WIDTH = 190
"""Of the column of captions."""
LINES = 8
"""Of a caption at most, unless the image beside it is higher."""
GALLERY_COLUMNS = 4
INK = (40, 40, 44)
PAPER = (255, 255, 255)
FONT_SIZE = 13


class Grid(NamedTuple):
    """A labelled grid, and where the images in it are.

    Attributes:
        cell: width and height of each image, in pixels. lefts: of the columns. tops: of the rows.
    """

    sheet: Image.Image
    cell: int
    lefts: Sequence[int]
    tops: Sequence[int]


def labelled_grid(
    columns: Sequence[tuple[str, np.ndarray]],
    captions: Sequence[str],
    cell: int = 128,
    title: str | None = None,
    figures: Sequence[str] = (),
) -> Grid:
    """One column a sampling, one row a caption, as high as image or caption needs.

    Args:
        columns: heading, in one line or several, and images, uint8 (len(captions), H, W, 3).
        cell: width of an image in the grid, in pixels; smaller images are enlarged without smoothing.
        figures: what stands under each heading.
    """
    width = MARGIN + TEXT_WIDTH + len(columns) * (cell + BETWEEN) - BETWEEN + MARGIN
    top = _title(title, width - 2 * MARGIN)
    room = cell + MARGIN // 2
    headings = [[part for line in heading.splitlines() for part in _wrap(line, room)] for heading, _ in columns]
    heads = _level(headings, [_wrap(figure, room) for figure in figures])
    sides = [_cut(_wrap(caption, TEXT_WIDTH - MARGIN), max(LINES, cell // LINE)) for caption in captions]
    rows = [max(cell, _height(lines)) + MARGIN for lines in sides]
    head = MARGIN + max(map(_height, heads)) + MARGIN
    sheet = Image.new("RGB", (width, _height(top) + head + sum(rows)), PAPER)
    _write(sheet, (MARGIN, MARGIN), top)
    lefts = [MARGIN + TEXT_WIDTH + column * (cell + BETWEEN) for column in range(len(columns))]
    tops = list(accumulate(rows[:-1], initial=_height(top) + head))
    for left, lines, (_, images) in zip(lefts, heads, columns, strict=True):
        _write(sheet, (left, _height(top) + MARGIN), lines)
        for image, y in zip(images, tops, strict=True):
            sheet.paste(fit(image, cell), (left, y))
    for lines, y in zip(sides, tops, strict=True):
        _write(sheet, (MARGIN, y), lines)
    return Grid(sheet, cell, lefts, tops)


def gallery(images: np.ndarray, captions: Sequence[str], cell: int, title: str) -> Image.Image:
    """Images side by side, `GALLERY_COLUMNS` to a row, each with its caption below it.

    Args:
        images: uint8 (len(captions), H, W, 3). cell: as in `labelled_grid`.
    """
    across = min(GALLERY_COLUMNS, len(captions))
    width = MARGIN + across * (cell + MARGIN)
    top, below = _title(title, width - 2 * MARGIN), [_cut(_wrap(caption, cell), LINES) for caption in captions]
    starts = range(0, len(captions), across)
    rows = [cell + MARGIN + max(map(_height, below[start : start + across])) + MARGIN for start in starts]
    sheet = Image.new("RGB", (width, MARGIN + _height(top) + MARGIN + sum(rows)), PAPER)
    _write(sheet, (MARGIN, MARGIN), top)
    y = MARGIN + _height(top) + MARGIN
    for start, height in zip(starts, rows, strict=True):
        for column, index in enumerate(range(start, min(start + across, len(captions)))):
            left = MARGIN + column * (cell + MARGIN)
            sheet.paste(fit(images[index], cell), (left, y))
            _write(sheet, (left, y + cell + MARGIN // 2), below[index])
        y += height
    return sheet


def _level(headings: Sequence[list[str]], figures: Sequence[list[str]]) -> list[list[str]]:
    """Headings with figures under them, all figures at one height."""
    tallest = max(map(len, headings))
    below = figures or [[] for _ in headings]
    return [[*lines, *[""] * (tallest - len(lines)), *figure] for lines, figure in zip(headings, below, strict=True)]


def fit(image: np.ndarray, cell: int) -> Image.Image:
    """An image uint8 (H, W, 3) as a square of `cell` pixels; a smaller one is enlarged without smoothing."""
    sampling = Image.Resampling.NEAREST if image.shape[0] < cell else Image.Resampling.LANCZOS
    return Image.fromarray(image).resize((cell, cell), sampling)


def _title(title: str | None, width: int) -> list[str]:
    return _wrap(title, width) if title else []


def _height(lines: Sequence[str]) -> int:
    return LINE * len(lines)


def _write(sheet: Image.Image, place: tuple[int, int], lines: Sequence[str]) -> None:
    pen, font = ImageDraw.Draw(sheet), _font()
    for number, line in enumerate(lines):
        pen.text((place[0], place[1] + LINE * number), line, INK, font)


def _cut(lines: list[str], most: int) -> list[str]:
    """At most so many lines, the last of which ends in an ellipsis where there were more."""
    if len(lines) <= most:
        return lines
    return [*lines[: most - 1], f"{lines[most - 1][:-1].rstrip()}…"]


@cache
def _letters() -> Collection[int]:
    """Code points that the font has."""
    from matplotlib.ft2font import FT2Font

    return FT2Font(_font_file()).get_charmap().keys()


def _drawable(text: str) -> str:
    """The text, with letters that the font lacks as the escapes of their code points, where boxes would stand."""
    return "".join(
        letter if letter.isspace() or ord(letter) in _letters() else letter.encode("unicode_escape").decode()
        for letter in text
    )


@cache
def _font() -> ImageFont.FreeTypeFont:
    """That of charts, which has the letters of most European languages; Pillow's own has those of English."""
    return ImageFont.truetype(_font_file(), FONT_SIZE)


def _font_file() -> Path:
    from matplotlib import get_data_path

    return Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def _wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` pixels that hold the whole text; a word that is wider than a line is broken."""
    font = _font()
    lines = [""]
    for word in _drawable(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines
