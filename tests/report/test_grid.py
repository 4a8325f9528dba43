"""Grids show captions inside of their sheet, whole unless they are very long, and with letters that can be read."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lcm_distill.evaluation.image_grid import GRID_ROWS, shown_images, shown_places, write_grid
from lcm_distill.evaluation.prompt_files import Prompt
from lcm_distill.report import grid
from lcm_distill.report.grid import gallery, labelled_grid
from lcm_distill.shapes.scenes import ATTRIBUTES, named_in
from tests.documents import ROOT

LONG = " ".join(f"word{number}" for number in range(14))


@pytest.fixture
def written(monkeypatch):
    """Everything that is written: sheet's size, place of the first line, lines."""
    calls, real = [], grid._write
    monkeypatch.setattr(
        grid,
        "_write",
        lambda sheet, place, lines: calls.append((sheet.size, place, lines)) or real(sheet, place, lines),
    )
    return calls


def whole_and_inside(calls, texts: list[str], width: int) -> None:
    """Each text is there word for word, within its column and the sheet."""
    font = grid._font()
    found = ["".join("".join(lines).split()) for _, _, lines in calls]
    for text in texts:
        assert "".join(text.split()) in found
    for (sheet_width, height), (left, top), lines in calls:
        assert top + grid.LINE * len(lines) <= height
        for line in lines:
            assert font.getlength(line) <= width and left + font.getlength(line) <= sheet_width


@pytest.mark.parametrize("caption", ["short", LONG, "x" * 110])
def test_captions_of_a_gallery(written, caption):
    images = np.full((5, 64, 64, 3), 200, np.uint8)
    captions = [caption, "a", "b", "c", "d"]
    sheet = gallery(images, captions, 128, "student, 4 steps")
    whole_and_inside(written, [*captions, "student, 4 steps"], 4 * 136)
    assert sheet.size[0] == 8 + 4 * 136
    whole_and_inside([call for call in written if call[2] != ["student, 4 steps"]], captions, 128)


def test_headings_stand_apart(written):
    """By a few letters, so that two of them do not read as one."""
    images = np.full((1, 64, 64, 3), 200, np.uint8)
    headings = ["student\n2 consistency steps", "untrained student\n4 consistency steps", "W" * 40]
    labelled_grid([(heading, images) for heading in headings], ["a"], 128, None, ["Fréchet distance 21.78"] * 3)
    blocks = [(place[0], lines) for _, place, lines in written if lines[1:]]
    assert [lines[:2] for _, lines in blocks[:2]] == [heading.split("\n") for heading in headings[:2]]
    for (left, lines), (beside, _) in pairwise(blocks):
        assert left + max(map(grid._font().getlength, lines)) + grid.FONT_SIZE <= beside


@pytest.mark.parametrize("caption", ["short", LONG, "x" * 110])
def test_captions_of_a_labelled_grid(written, caption):
    images = np.full((2, 64, 64, 3), 200, np.uint8)
    labelled_grid([("one way", images), ("another", images)], [caption, "below"], 128, "a title")
    whole_and_inside(written, [caption, "below", "one way", "another", "a title"], grid.TEXT_WIDTH)
    places = {lines[0]: place for _, place, lines in written if lines}
    first = next(lines for _, _, lines in written if "".join(lines).startswith(caption[:5]))
    assert places["below"][1] >= places[first[0]][1] + grid.LINE * len(first)


def test_the_grid_of_an_evaluation_names_seed_steps_and_scale(written, tmp_path):
    image_sets = [
        SimpleNamespace(
            sampling=SimpleNamespace(title=heading, heading=heading, guidance=2.5),
            config=SimpleNamespace(generation_seed=17),
            checkpoint_sha256="abc",
            images=lambda places: np.full((len(places), 64, 64, 3), 200, np.uint8),
        )
        for heading in ("teacher\n18 Heun steps", "student of a long name\n4 steps")
    ]
    columns = cast(Any, list(zip(image_sets, ["Fréchet distance 1.20", "Fréchet distance 1.30"], strict=True)))
    write_grid(tmp_path / "grid.png", columns, [Prompt(0, "a red ring"), Prompt(1, "a blue ring")])
    whole_and_inside(written, ["guidance 2.5, seed 17"], 190 + 2 * 136)
    teacher, student = (next(lines for _, _, lines in written if lines[0].startswith(word)) for word in ("tea", "stu"))
    assert teacher == ["teacher", "18 Heun steps", "", "Fréchet distance", "1.20"]
    assert student == ["student of a long", "name", "4 steps", "Fréchet distance", "1.30"]


@pytest.mark.parametrize(
    ("lengths", "places"),
    [
        ([9], [0]),
        ([9, 1, 5, 5, 5, 5, 5, 5], [0, 1, 2, 3, 4, 5]),
        ([9, 1, *[5] * 10], [1, 2, 4, 6, 8, 10]),
        ([*[9, 3, 3] * 2, *[2, 3, 4] * 2, *[3, 2, 1] * 2, *[1] * 9], [1, 4, 6, 9, 14, 17]),
    ],
)
def test_a_grid_shows_the_shortest_of_every_few_captions(lengths, places):
    assert shown_places([Prompt(number, "x" * length) for number, length in enumerate(lengths)]) == places


def test_a_grid_has_the_images_of_the_captions_that_it_shows(tmp_path):
    captions = [f"{number:02d} {'long ' * (number % 3)}" for number in range(20, 0, -1)]
    image_set = SimpleNamespace(
        sampling=SimpleNamespace(title="student", heading="student", guidance=2),
        config=SimpleNamespace(generation_seed=0),
        checkpoint_sha256="abc",
        images=lambda places: np.stack([np.full((64, 64, 3), 10 * place, np.uint8) for place in places]),
    )
    prompts = [Prompt(number, caption) for number, caption in enumerate(captions)]
    write_grid(tmp_path / "grid.png", cast(Any, [(image_set, "")]), prompts)
    shown = shown_images(tmp_path / "grid.png")["student"]
    assert [(caption, np.asarray(image)[30, 30, 0]) for caption, image in shown.items()] == [
        (f"{20 - place:02d} ", 10 * place) for place in (2, 5, 8, 11, 14, 17)
    ]


def test_most_captions_of_the_demo_leave_something_open():
    """The picture in the README; a full caption names all five attributes of `shapes`."""
    for captions in shown_images(ROOT / "docs/demo.png").values():
        assert len(captions) == GRID_ROWS
        assert sum(len(named_in(caption)) < len(ATTRIBUTES) for caption in captions) >= 4


@pytest.mark.parametrize("text", [" ".join(["word"] * 60), "x" * 300])
def test_captions_longer_than_their_place_are_cut(written, text):
    images = np.full((2, 64, 64, 3), 200, np.uint8)
    sheet = gallery(images, [text, "below"], 128, "a title")
    labelled = labelled_grid([("one way", images)], [text, "below"], 128).sheet
    cut = [lines for _, _, lines in written if len(lines) > 2]
    assert [len(lines) for lines in cut] == [grid.LINES] * 2 and all(lines[-1].endswith("…") for lines in cut)
    whole_and_inside(written, ["below"], grid.TEXT_WIDTH)
    assert sheet.size[1] < 128 + 12 * grid.LINE and labelled.size[1] < 2 * (128 + 3 * grid.LINE)
    assert "".join("".join(cut[0])[:-1].split()) in "".join(text.split())


def test_letters_that_the_font_lacks_are_escapes(written):
    gallery(np.zeros((1, 64, 64, 3), np.uint8), ["猫 é 🎉"], 256, "a title")
    assert written[-1][2] == [r"\u732b é \U0001f389"]


def drawn(letter: str) -> bytes:
    image = Image.new("L", (30, 30))
    ImageDraw.Draw(image).text((5, 5), letter, 255, grid._font())
    return image.tobytes()


@pytest.mark.parametrize("letter", "éőßжλ")
def test_letters_of_european_languages_are_drawn(letter):
    assert drawn(letter) != drawn("\uffff")  # which no font has


def test_images_stand_where_their_caption_is():
    images = np.stack([np.full((64, 64, 3), shade, np.uint8) for shade in (10, 90, 170, 210, 250)])
    sheet = np.asarray(gallery(images, ["a", "b", "c", "d", LONG], 64, "title"))
    assert [sheet[60, 8 + 72 * column + 30, 0] for column in range(4)] == [10, 90, 170, 210]
    assert (sheet[:, 30] == 250).all(axis=1).sum() == 64
