"""Samples and captions are numbered once and for all."""

from lcm_distill.data.cache.catalog import build_catalog, split_of
from lcm_distill.data.sources.interface import Annotation


def catalog_of(annotations, scratch, valid_fraction=0.3):
    scratch.mkdir(exist_ok=True)
    return build_catalog(annotations, valid_fraction, scratch)


def test_rows_follow_archives_then_appearance(tmp_path):
    annotations = [
        Annotation("d", "imgs/001/d.jpg", "same"),
        Annotation("a", "imgs/000/a.jpg", "other"),
        Annotation("c", "imgs/001/c.jpg", "third"),
        Annotation("b", "imgs/000/b.jpg", "same"),
        Annotation("a", "imgs/001/a.jpg", "again"),
    ]
    catalog, again = catalog_of(annotations, tmp_path / "scratch")
    assert catalog.samples["sample_id"].to_pylist() == ["a", "b", "d", "c"]
    assert catalog.samples["row"].to_pylist() == [0, 1, 2, 3]
    assert catalog.captions["caption"].to_pylist() == ["other", "same", "third"]
    assert catalog.samples["caption_row"].to_pylist() == [0, 1, 1, 2]
    assert again == ["imgs/001/a.jpg"]


def test_split_is_the_captions_and_stays(tmp_path):
    few = [Annotation(str(n), f"imgs/{n}.jpg", f"caption {n % 50}") for n in range(200)]
    catalog, _ = catalog_of(few, tmp_path / "few")
    splits = dict(zip(catalog.captions["caption"].to_pylist(), catalog.captions["split"].to_pylist(), strict=True))
    assert splits == {caption: split_of(caption, 0.3) for caption in splits}
    assert 5 <= list(splits.values()).count("valid") <= 25
    rows = catalog.samples.to_pylist()
    assert all(row["split"] == splits[f"caption {int(row['sample_id']) % 50}"] for row in rows)
    longer, _ = catalog_of([*few, Annotation("new", "imgs/new.jpg", "caption 3")], tmp_path / "longer")
    assert longer.samples.to_pylist()[-1]["split"] == splits["caption 3"]


def test_one_caption_row_for_many_images(tmp_path):
    annotations = [Annotation(str(n), f"imgs/{n:04d}.jpg", f"caption {n * 10 // 27}") for n in range(2_700)]
    catalog, _ = catalog_of(annotations, tmp_path / "scratch")
    assert len(catalog.captions) / len(catalog.samples) <= 0.371
    captions = catalog.captions["caption"].to_pylist()
    assert all(
        captions[sample["caption_row"]] == f"caption {int(sample['sample_id']) * 10 // 27}"
        for sample in catalog.samples.to_pylist()
    )


def test_nothing_gives_an_empty_catalog(tmp_path):
    catalog, again = catalog_of([], tmp_path / "scratch")
    assert len(catalog.samples) == len(catalog.captions) == 0 and again == []
