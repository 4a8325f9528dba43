"""Caption files: the four forms, and every way of being wrong."""

import json
from collections import Counter

import pytest

from lcm_distill.core.errors import UserError
from lcm_distill.evaluation.prompt_files import Prompt, read_prompts


def write(folder, name: str, text: str | bytes):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def coco(images: int, captions: int = 5) -> str:
    return json.dumps({
        "images": [{"id": 3 * image, "file_name": f"{image}.jpg"} for image in range(images)],
        "annotations": [
            {"id": 10 * image + number, "image_id": 3 * image, "caption": f"image {image}, wording {number}\n"}
            for number in range(captions) for image in range(images)
        ],
    })  # fmt: skip


def test_benchmark_csv_keeps_quoted_commas_and_line_feeds(tmp_path):
    path = write(tmp_path, "30k.csv", '\ufeffimage_id,text\r\n391895,"A man, a ""bike"""\r\n22,"two\nlines"\r\n')
    assert read_prompts(path) == [Prompt(391895, 'A man, a "bike"'), Prompt(22, "two\nlines")]


def test_columns_go_by_name(tmp_path):
    assert read_prompts(write(tmp_path, "a.csv", "n,text,image_id\n0,a cat,7\n")) == [Prompt(7, "a cat")]


def test_parti_is_read_without_quoting(tmp_path):
    rows = 'Prompt\tCategory\tChallenge\tNote\na 6" tall "sign\tSigns\tBasic\t\na\u2028b\tWorld\tBasic\t"x\n'
    assert read_prompts(write(tmp_path, "PartiPrompts.tsv", rows)) == [
        Prompt(0, 'a 6" tall "sign'),
        Prompt(1, "a\u2028b"),
    ]


def test_text_file(tmp_path):
    assert read_prompts(write(tmp_path, "own.txt", " a cat \r\na dog")) == [Prompt(0, "a cat"), Prompt(1, "a dog")]


def test_coco_gives_every_image_one_caption_in_a_fixed_order(tmp_path):
    prompts = read_prompts(write(tmp_path, "captions_val2014.json", coco(500)))
    assert sorted(prompt.image_id for prompt in prompts) == list(range(0, 1500, 3))
    assert [prompt.image_id for prompt in prompts[:4]] == [1422, 525, 123, 297]
    assert all(prompt.caption.startswith(f"image {prompt.image_id // 3}, wording ") for prompt in prompts)
    wordings = Counter(prompt.caption[-1] for prompt in prompts)
    assert set(wordings) == set("01234") and min(wordings.values()) > 70  # 100 expected, standard deviation 9


def test_which_caption_does_not_depend_on_the_order_of_the_file(tmp_path):
    content = json.loads(coco(50))
    content["annotations"].reverse()
    one, other = write(tmp_path, "a.json", coco(50)), write(tmp_path, "b.json", json.dumps(content))
    assert read_prompts(one) == read_prompts(other)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "image_id,text\n7,a\n8,b\n7,c\n", "line 4: image_id 7 is also in line 2: delete one of them"),
        ("a.csv", "image_id,text\n7, \n", "line 2: the caption is empty: write one"),
        ("a.csv", "id,caption\n7,a\n", "line 1: the header is 'id,caption' and lacks image_id: it must name"),
        ("a.csv", "image_id,text\nx,a\n", "line 2: image_id 'x' is no number"),
        ("a.csv", "image_id,text\n-1,a\n", "line 2: image_id '-1' is no number of 0 or more"),
        ("a.csv", "image_id,text\n7\n", "line 2: it has 1 column, too few"),
        ("a.csv", "image_id,text\n7,\u200b\u00a0\n", "line 2: the caption is empty"),
        ("a.csv", 'image_id,text\n7,"a\n', "line 2: unexpected end of data"),
        ("a.csv", "image_id,text\n", "holds no caption"),
        ("a.csv", "", "line 1: the header is ''"),
        ("a.tsv", "prompt\tCategory\na\tb\n", "line 1: the header is 'prompt,Category' and lacks Prompt"),
        ("a.tsv", "Prompt\tCategory\n\tb\n", "line 2: the caption is empty"),
        ("a.txt", "a\n\nb\n", "line 2: the caption is empty"),
        ("a.txt", "", "holds no caption"),
        ("a.txt", b"a\n\xff", "is not UTF-8 (byte 2)"),
        ("a.json", "[1]", "is not a file of COCO captions: not a JSON object but a list"),
        ("a.json", '{"annotations": null}', "is not a file of COCO captions: its 'annotations' is null, not a list"),
        ("a.json", '{"annotations": [null]}', "annotation 0 lacks a number as image_id or id, or a text as caption"),
        ("a.json", '{"annotations": [{"id": 1, "image_id": 2, "caption": null}]}', "annotation 0 lacks a number"),
        ("a.json", '{"annotations": [{"id": 1, "image_id": 1}]}', "annotation 0 lacks a number as image_id or id"),
        ("a.json", '{"annotations": [{"id": 1, "image_id": 4, "caption": " "}]}', "annotation 1: the caption is empty"),
        ("a.json", json.dumps({"annotations": 2 * [{"id": 5, "image_id": 1, "caption": "a"}]}), "have id 5: delete"),
        ("a.md", "a", "captions come from a .csv"),
    ],
)  # fmt: skip
def test_wrong_files_are_named_with_their_row(tmp_path, name, content, message):
    path = write(tmp_path, name, content)
    with pytest.raises(UserError) as caught:
        read_prompts(path)
    told = str(caught.value)
    assert told.startswith(str(path)) and message in told and "\n" not in told


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv is missing: give the path"):
        read_prompts(tmp_path / "none.csv")
