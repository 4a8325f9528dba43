"""Fields and columns of other names than usual: of images and captions, by keys and by options."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcm_distill.commands.options import columns
from lcm_distill.config import load_preset
from lcm_distill.config.section import identity_of
from lcm_distill.core.errors import UserError
from tests.command_line import lcm
from tests.data.test_source_formats import records_of
from tests.data.test_sources import source_of
from tests.foreign import image_bytes


def test_columns_of_other_names(tmp_path):
    (tmp_path / "metadata.jsonl").write_text('{"image": {"path": "a.jpg"}, "en.long": "dotted", "text": "other"}')
    own = "data.image_column=image.path", "data.caption_column=en.long"
    assert records_of("folder", tmp_path, *own) == {"a.jpg": "dotted"}
    rows = {"jpg.x": [image_bytes(0)], "thumbnail": [b"small"], "en.long": ["literal"], "de": [{"long": "nested"}]}
    pq.write_table(pa.table(rows), tmp_path / "0.parquet")
    image = "data.image_column=jpg.x"
    assert records_of("parquet", tmp_path, image, "data.caption_column=en.long") == {"0.parquet/0": "literal"}
    assert records_of("parquet", tmp_path, image, "data.caption_column=de.long") == {"0.parquet/0": "nested"}
    with pytest.raises(UserError, match=r"has 2 columns of bytes \(.*, .*\): name that of images with --image-column"):
        records_of("parquet", tmp_path, "data.caption_column=de.long")
    source = source_of("parquet", tmp_path, image, "data.caption_column=en.long")
    assert dict(source.read(["0.parquet/0"])) == {"0.parquet/0": image_bytes(0)}


@pytest.mark.parametrize("command", ["precompute", "pretrain", "run"])
def test_options_name_the_columns(tmp_path, command):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.jpg").write_bytes(image_bytes(0))
    (data / "metadata.jsonl").write_text('{"im": {"path": "a.jpg"}, "en.long": "a caption", "text": " "}')

    def survey(*options: str) -> dict:
        words = "--preset", "shapes", "--set", "data.source=folder", "--set", f"data.root={data}", "--dry-run", "--json"
        result = lcm(command, *words, "--run", tmp_path / "run", *options)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)["precompute"]["data"]

    if command == "precompute":  # plans of trainings take longer
        assert survey()["quarantined"] == {"malformed annotation: no file_name": "1, such as metadata.jsonl:1"}
        assert survey("--image-column", "im.path")["quarantined"] == {
            "malformed annotation: no text": "1, such as metadata.jsonl:1"
        }
    assert survey("--image-column", "im.path", "--caption-column", "en.long")["pairs"] == 1
    wrong = lcm(command, "--preset", "shapes", "--run", tmp_path / "run", "--caption-column", "")
    assert wrong.exit_code == 2 and "at least 1 character" in wrong.stderr and not (tmp_path / "run").exists()


def test_the_column_of_an_option_stands_alone():
    odd = 'x."y" = é'
    config = load_preset("shapes", ["data.captions={de=1, fr=2}", *columns(odd, odd)])
    assert config.data.captions == {odd: 1.0} and config.data.image_column == odd


def test_columns_that_contradict_each_other_are_refused():
    given = ["data.source=folder", "data.caption_column=en"]
    assert load_preset("shapes", given).data.captions == {"en": 1.0}
    with pytest.raises(UserError, match=r"data\.caption_column = 'en' and data\.captions are both set"):
        load_preset("shapes", [*given, "data.captions={de=1}"])
    with pytest.raises(UserError, match=r"data\.image_column = 'x': source webdataset has no .* --image-column out"):
        source_of("webdataset", Path(), "data.image_column=x")


def test_unset_columns_leave_the_fingerprint_of_older_configurations():
    unset, set_ = (load_preset("shapes", assigned) for assigned in ([], ["data.image_column=x"]))
    unset, set_ = (identity_of(config.data, fingerprint=True) for config in (unset, set_))
    assert "image_column" not in unset and set_["image_column"] == "x"
