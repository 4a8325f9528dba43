"""What is read of metadata files: JSON lines, CSV and Parquet."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcm_distill.data.sources.journeydb import ANNOTATIONS, IMAGES
from tests.data.test_source_formats import records_of


def test_metadata_in_csv_and_parquet(tmp_path):
    for folder in ("c", "p"):
        (tmp_path / folder).mkdir()
    (tmp_path / "c" / "metadata.csv").write_bytes(
        b'file_name,text\na.jpg,"a caption, with\na new line"\nb.jpg,caf\xe9\n,nameless\n\nd.jpg\n'
    )
    table = pa.table({"file_name": ["a.jpg", "b.jpg"], "text": ["from Parquet", None]})
    pq.write_table(table, tmp_path / "p" / "metadata.parquet")
    assert records_of("folder", tmp_path) == {
        "c/a.jpg": "a caption, with\na new line",
        "c/b.jpg": "bad: missing file; malformed annotation: caption is not UTF-8: byte 0xe9 at position 3",
        "c/metadata.csv:5": "bad: malformed annotation: no file_name",
        "c/metadata.csv:7": "bad: malformed annotation: 1 of 2 fields",
        "p/a.jpg": "from Parquet",
        "p/metadata.parquet:2": "bad: missing file; malformed annotation: no text",
    }
    (tmp_path / "p" / "metadata.parquet").write_bytes(b"PAR1 and nothing more")
    assert "damaged file after 0 records" in records_of("folder", tmp_path)["p/metadata.parquet"]


COMMA = "3 fields where the header has 2: text with commas needs quotes"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_malformed_row_of_csv_costs_itself_alone(tmp_path, end):
    """A comma too many or too few, a quote that never closes: the row is named by its line, and the next are read.

    Other quotes are read as Python's csv and pandas read them.
    """
    lines = ["file_name,text", "0.jpg,a red, shiny car", '1.jpg,"a tree', "2.jpg,two", '3.jpg,"three, ""3"" and',
             'more"', '4.jpg,"a "boat" here"', "", "5.jpg", '6.jpg,six"', '7.jpg,"seven', "8.jpg,eight"]  # fmt: skip
    (tmp_path / "metadata.csv").write_bytes(end.join(lines).encode())
    expected = {2: COMMA, 3: "not CSV", 9: "1 of 2 fields", 11: "not CSV (unexpected end of data)"}
    found = records_of("folder", tmp_path)
    bad = {int(name.partition(":")[2]): text for name, text in found.items() if name.startswith("metadata.csv:")}
    assert bad.keys() == expected.keys()
    assert all(bad[n].startswith(f"bad: malformed annotation: {reason}") for n, reason in expected.items())
    good = {name: text for name, text in found.items() if not text.startswith("bad")}
    assert good == {
        "2.jpg": "two", "3.jpg": f'three, "3" and{end}more', "8.jpg": "eight",
        "4.jpg": 'a boat" here"', "6.jpg": 'six"',
    }  # fmt: skip


def test_a_header_that_is_no_csv_is_named_by_its_line(tmp_path):
    (tmp_path / "metadata.csv").write_text('file_name,"text\n0.jpg,zero\n')
    assert records_of("folder", tmp_path) == {
        "metadata.csv": "bad: malformed annotation: damaged file after 0 records: line 1 is not CSV (unexpected end of "
        "data)"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["folder", "journeydb"])
def test_blank_lines_are_no_records_and_count_as_lines(tmp_path, name):
    fields = ("img_path", "prompt") if name == "journeydb" else ("file_name", "text")
    lines = ["", json.dumps(dict(zip(fields, ("0/a.jpg", "a"), strict=True))), "  \r", "{broken", ""]
    path = tmp_path / (ANNOTATIONS if name == "journeydb" else "metadata.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    found = records_of(name, tmp_path)
    assert {name.rpartition(":")[2] for name in found} == {
        f"{IMAGES}/0/a.jpg" if name == "journeydb" else "0/a.jpg",
        "4",
    }


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_columns_may_be_separated_by_semicolons_and_tabs(tmp_path, mark):
    rows = [("text", "file_name"), ("one", "a.jpg"), (f'"two{mark} and, three"', "b.jpg"), ("too", "many", "c.jpg")]
    (tmp_path / "metadata.csv").write_text("\n".join(map(mark.join, rows)))
    found = records_of("folder", tmp_path)
    assert (found["a.jpg"], found["b.jpg"]) == ("one", f"two{mark} and, three")
    assert found["metadata.csv:4"].startswith("bad: malformed annotation: 3 fields where the header has 2")


@pytest.mark.parametrize("text", ["\u00a0", "\u200b", "\ufeff \u2060", "\u200e\u3000\u2028", "\u00ad", "\U000e0020"])
@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_caption_that_nobody_sees_is_none(tmp_path, name, text):
    """Of characters that only separate or format; beside others they are kept."""
    rows = [("a.jpg", text), ("b.jpg", f"a{text}b")]
    if name == "metadata.csv":
        (tmp_path / name).write_text("file_name,text\n" + "".join(f'{image},"{words}"\n' for image, words in rows))
    else:
        (tmp_path / name).write_text("\n".join(json.dumps({"file_name": it, "text": words}) for it, words in rows))
    found = records_of("folder", tmp_path)
    assert found["b.jpg"] == f"a{text}b"
    assert [reason for path, reason in found.items() if path != "b.jpg"] == [
        "bad: missing file; malformed annotation: no text"
    ]


def test_a_metadata_file_without_the_column_of_captions_says_which_it_has(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,caption,empty,title\na.jpg,one,,two\n")
    hint = "no text, but caption and title: name one with --caption-column"
    assert list(records_of("folder", tmp_path).values()) == [f"bad: missing file; malformed annotation: {hint}"]
    assert records_of("folder", tmp_path, "data.caption_column=caption") == {"a.jpg": "one"}


def test_quotes_in_a_row_of_csv_are_read_as_by_pythons_csv(tmp_path):
    texts = ['"red" car', 'red" car', '5" by "7"', '"a" "b"', '"a ""quoted"" word"', '"x"y"z', ' "spaced"', '""']
    rows = [f"{n}.jpg,{text}" for n, text in enumerate(texts)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,text", *rows]))
    found = records_of("folder", tmp_path)
    expected = {name: text.strip() for name, text in csv.reader(rows)}
    assert expected["0.jpg"] == "red car" and expected.pop("7.jpg") == ""
    assert {name: text for name, text in found.items() if not text.startswith("bad")} == expected
