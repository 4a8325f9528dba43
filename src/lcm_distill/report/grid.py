"""Labelled grids of pictures."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN = 8
INK = (40, 40, 44)
PAPER = (255, 255, 255)


def labelled_grid(columns: Sequence[tuple[str, np.ndarray]], captions: Sequence[str], cell: int = 128) -> Image.Image:
    """One column a way of drawing, one row a caption; captions are wrapped and never cut.

    Args:
        columns: heading and pictures, uint8 (len(captions), H, W, 3).
        cell: width of a picture in the grid, in pixels; smaller pictures are enlarged without smoothing.
    """
    font = ImageFont.load_default(14)
    text_width = 190
    heads = [_wrap(heading, font, cell) for heading, _ in columns]
    top = MARGIN + max(len(head) for head in heads) * 18 + MARGIN
    width = MARGIN + text_width + len(columns) * (cell + MARGIN)
    sheet = Image.new("RGB", (width, top + len(captions) * (cell + MARGIN)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, (head, (_, pictures)) in enumerate(zip(heads, columns, strict=True)):
        left = MARGIN + text_width + column * (cell + MARGIN)
        pen.multiline_text((left, MARGIN), "\n".join(head), INK, font)
        for row, picture in enumerate(pictures):
            enlarged = Image.fromarray(picture).resize(
                (cell, cell), Image.Resampling.NEAREST if picture.shape[0] < cell else Image.Resampling.LANCZOS
            )
            sheet.paste(enlarged, (left, top + row * (cell + MARGIN)))
    for row, caption in enumerate(captions):
        lines = "\n".join(_wrap(caption, font, text_width - MARGIN))
        pen.multiline_text((MARGIN, top + row * (cell + MARGIN)), lines, INK, font)
    return sheet


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
