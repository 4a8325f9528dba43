"""Reference statistics from files and folders, and what is said of those that cannot be used."""

import numpy as np
import pytest
import torch
from PIL import Image

from lcm_distill.core.errors import DataError, UserError
from lcm_distill.metrics.frechet import Gaussian
from lcm_distill.metrics.protocol import measure
from lcm_distill.metrics.reference_files import (
    folder_identity,
    image_files,
    read_image,
    read_statistics,
    write_statistics,
)
from lcm_distill.metrics.registry import find_protocol, open_protocol
from lcm_distill.metrics.statistics import Statistics


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "sub/a.JPG", "c.webp"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (len(name), 2, 3)).save(path, format="PNG")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    return tmp_path / "images"


def test_images_of_a_folder_in_order(folder):
    assert [path.name for path in image_files(folder)] == ["b.png", "c.webp", "a.JPG"]
    with pytest.raises(UserError, match="empty holds no image"):
        image_files(folder / "empty")


def test_unreadable_image_is_named(folder):
    broken = folder / "b.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(DataError, match=r"b.png cannot be read as an image .*: replace it or remove it") as raised:
        read_image(broken)
    assert "\n" not in str(raised.value)
    assert read_image(folder / "c.webp").mode == "RGB"


def test_identity_is_names_contents_and_protocol(folder):
    opened = open_protocol("shapes")
    identity = folder_identity(folder, image_files(folder), opened)
    assert folder_identity(folder, image_files(folder), opened) == identity
    (folder / "b.png").rename(folder / "d.png")
    renamed = folder_identity(folder, image_files(folder), opened)
    Image.new("RGB", (8, 8), (5, 2, 4)).save(folder / "d.png", format="PNG")
    assert len({identity, renamed, folder_identity(folder, image_files(folder), opened)}) == 3


def test_statistics_come_back(tmp_path):
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    written = Statistics.of(x, range(50), 20)
    write_statistics(tmp_path / "kept.npz", written)
    read = read_statistics(tmp_path / "kept.npz", 4)
    assert torch.equal(read.moments.mean(), written.moments.mean())
    assert torch.equal(read.moments.covariance(), written.moments.covariance())
    assert read.features is not None and written.features is not None
    assert torch.equal(read.features, written.features)


def test_the_number_of_images_comes_back_and_few_are_refused_as_before_they_were_kept(tmp_path):
    """20 real images and 12,000 generated ones, of 32 features."""
    draw = torch.Generator().manual_seed(0)
    real = Statistics.of(torch.randn(20, 32, generator=draw), range(20), 10_000)
    generated = Statistics.of(torch.randn(12_000, 32, generator=draw), range(12_000), 10_000)
    write_statistics(tmp_path / "kept.npz", real, "of 20")
    kept = read_statistics(tmp_path / "kept.npz", 32, "of 20")
    assert (real.images, kept.images, generated.images) == (20, 20, 12_000)
    for reference in (real, kept):
        with pytest.raises(UserError, match="20 images are too few for a Fréchet distance of 32 features"):
            measure(find_protocol("t2i-benchmark"), generated, reference)


def test_files_of_earlier_versions_and_of_others_hold_no_number_of_images(tmp_path):
    """Another program's array of that name is left alone."""
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    moments = Statistics.of(x, range(20), 20).moments
    write_statistics(tmp_path / "earlier.npz", Statistics(Gaussian(moments.mean(), moments.covariance())), "id")
    with np.load(tmp_path / "earlier.npz") as stored:
        assert set(stored.files) == {"mu", "sigma", "identity", "sha256"}
    assert read_statistics(tmp_path / "earlier.npz", 4, "id").images is None
    np.savez(tmp_path / "other.npz", mu=np.zeros(3), sigma=np.eye(3), count=np.array("many"))
    assert read_statistics(tmp_path / "other.npz", 3).images is None


def test_published_statistics_are_read(tmp_path):
    np.savez(tmp_path / "published.npz", mu=np.arange(3, dtype=np.float32), sigma=np.eye(3))
    read = read_statistics(tmp_path / "published.npz", 3)
    assert read.moments.mean().tolist() == [0, 1, 2]
    assert read.features is None


def test_statistics_of_other_dimensions_are_refused(tmp_path):
    np.savez(tmp_path / "clip.npz", mu=np.zeros(768), sigma=np.eye(768))
    with pytest.raises(UserError, match=r"clip.npz: mu has shape \(768,\) .* the network gives 2,048 features: take"):
        read_statistics(tmp_path / "clip.npz", 2048)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"text"])
def test_files_that_are_no_statistics_are_named(tmp_path, content):
    (tmp_path / "some.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"some.npz is no .npz of mu and sigma"):
        read_statistics(tmp_path / "some.npz", 2)
    with pytest.raises(UserError, match=r"absent.npz is not there"):
        read_statistics(tmp_path / "absent.npz", 2)
    np.savez(tmp_path / "others.npz", mean=np.zeros(2))
    with pytest.raises(UserError, match=r"others.npz is no .npz of mu and sigma"):
        read_statistics(tmp_path / "others.npz", 2)


class Trap:
    """Unpickling it would create a file."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


SOUND = {"mu": np.zeros(3), "sigma": np.eye(3), "features": np.zeros((2, 3), np.float32), "ids": np.arange(2),
         "draws": np.zeros(2, np.float32)}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mu": np.array([0, np.nan, 0])}, "mu has values that are not finite"),
        ({"sigma": np.full((3, 3), np.inf)}, "sigma has values that are not finite"),
        ({"features": np.full((2, 3), np.nan, np.float32)}, "features has values that are not finite"),
        ({"mu": None}, "is no .npz of mu and sigma"),
        ({"draws": None}, "features, ids and draws do not belong together"),
        ({"ids": np.arange(3)}, "features, ids and draws do not belong together"),
        ({"features": np.zeros((2, 4), np.float32)}, "features, ids and draws do not belong together"),
        ({"mu": np.array(["a", "b", "c"])}, "is no .npz of mu and sigma"),
        ({"sigma": np.eye(3) + 1j}, "is no .npz of mu and sigma"),
    ],
)
def test_damaged_statistics_are_named_with_a_remedy(tmp_path, changes, message):
    arrays = {name: array for name, array in {**SOUND, **changes}.items() if array is not None}
    np.savez(tmp_path / "kept.npz", **arrays)
    with pytest.raises(UserError, match=rf"kept.npz.* {message}: take a file"):
        read_statistics(tmp_path / "kept.npz", 3)


def test_no_object_is_unpickled(tmp_path):
    trap = np.array([Trap(tmp_path / "sprung")] * 3)
    np.savez(tmp_path / "trap.npz", mu=trap, sigma=np.eye(3))
    with pytest.raises(UserError, match=r"trap\.npz is no \.npz of mu and sigma"):
        read_statistics(tmp_path / "trap.npz", 3)
    assert not (tmp_path / "sprung").exists()


def test_a_cut_anywhere_is_seen(tmp_path):
    np.savez(tmp_path / "whole.npz", **SOUND)
    content = (tmp_path / "whole.npz").read_bytes()
    for end in range(0, len(content), 37):
        (tmp_path / "cut.npz").write_bytes(content[:end])
        with pytest.raises(UserError, match=r"cut\.npz is no \.npz"):
            read_statistics(tmp_path / "cut.npz", 3)
