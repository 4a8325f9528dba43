"""Annotations in UTF-16 and UTF-32 with damage: it costs its own line, or the file is refused where lines are lost."""

import json

import pytest

from lcm_distill.core.errors import DataError
from lcm_distill.data.sources.journeydb import ANNOTATIONS
from tests.data.test_source_formats import records_of

WIDE = ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
COUNT = 5


def encoded(lines: list[str], encoding: str) -> bytearray:
    return bytearray(("\ufeff" + "".join(line + "\n" for line in lines)).encode(encoding))


def lines_of(source: str) -> list[str]:
    if source == "journeydb":
        return [
            json.dumps({"img_path": f"./000/{number}.jpg", "prompt": f"caption {number}"}) for number in range(COUNT)
        ]
    if source == "csv":
        return ["file_name,text", *(f"{number}.jpg,caption {number}" for number in range(COUNT))]
    return [json.dumps({"file_name": f"{number}.jpg", "text": f"caption {number}"}) for number in range(COUNT)]


def found(source: str, root, content: bytes | bytearray) -> dict[str, str]:
    """Captions by the number of the image, and reasons by what they are of."""
    name = ANNOTATIONS if source == "journeydb" else "metadata.csv" if source == "csv" else "metadata.jsonl"
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)
    for number in range(COUNT):
        if source != "journeydb":
            (root / f"{number}.jpg").touch()
    records = records_of("journeydb" if source == "journeydb" else "folder", root)
    return {path.rpartition("/")[2]: text for path, text in records.items()}


def spoil_character(content: bytearray, encoding: str, text: str) -> int:
    """Replace the first character of `text` by no character; returns its position."""
    place = content.index(text.encode(encoding))
    bad = b"\xff\xff\xff\xff" if encoding.startswith("utf-32") else "\ud800".encode(encoding, "surrogatepass")
    content[place : place + len(bad)] = bad
    return place


@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize("source", ["journeydb", "jsonl", "csv"])
def test_a_damaged_character_costs_its_own_record(tmp_path, encoding, source):
    content = encoded(lines_of(source), encoding)
    place = spoil_character(content, encoding, "caption 2")
    records = found(source, tmp_path, content)
    whole = {f"{number}.jpg": f"caption {number}" for number in range(COUNT) if number != 2}
    assert {name: text for name, text in records.items() if name in whole} == whole
    ((_, reason),) = [(name, text) for name, text in records.items() if name not in whole and text.startswith("bad: ")]
    assert (f"at position {place}" if source != "csv" else "caption is not text: lone surrogate") in reason


@pytest.mark.parametrize("encoding", WIDE)
def test_an_end_that_is_cut_costs_the_last_line(tmp_path, encoding):
    content = encoded(lines_of("journeydb"), encoding)
    records = found("journeydb", tmp_path, content[:-3])
    assert list(records.values())[: COUNT - 1] == [f"caption {number}" for number in range(COUNT - 1)]
    assert "malformed annotation: not UTF-" in list(records.values())[-1]


@pytest.mark.parametrize("encoding", WIDE)
def test_where_no_line_can_be_told_the_file_is_refused(tmp_path, encoding):
    """A byte too many: no line after it begins where a character does."""
    lines = lines_of("journeydb")
    content, whole = encoded(lines, encoding), encoded(lines[:2], encoding)
    content.insert(len(whole) + 9, 0x41)
    with pytest.raises(DataError) as refused:
        found("journeydb", tmp_path, content)
    line, name = str(refused.value), encoding[:6].upper()
    assert line == (
        f"{tmp_path / ANNOTATIONS} is damaged (not {name} from position {len(whole)} on, where no line ends): "
        "download it again"
    )
    records = found("jsonl", tmp_path / "folder", content)
    assert any(f"damaged file after 2 records: not {name} from position" in text for text in records.values())


def test_text_that_holds_the_bytes_of_a_line_feed_between_two_characters_is_text(tmp_path):
    lines = lines_of("journeydb")
    lines[1] = lines[1].replace("caption 1", "\u0a85\u3000\u0a85")  # 85 0A 00 30 85 0A
    records = found("journeydb", tmp_path, encoded(lines, "utf-16-le"))
    assert records["1.jpg"].startswith("\u0a85") and len(records) == COUNT
