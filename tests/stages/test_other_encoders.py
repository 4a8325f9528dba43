"""A cache holds rows of one VAE and one text encoder, whatever becomes of its files."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from lcm_distill import assets
from lcm_distill.arrays.metadata import read_metadata
from lcm_distill.config import load_preset
from lcm_distill.core.errors import UserError
from lcm_distill.data.cache import encoder_provenance, encoding
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.transforms import TRANSFORM
from lcm_distill.encoders.identity import identity
from lcm_distill.pipeline.manifest_parts import encode_part
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import LocalStorage
from lcm_distill.stages.precompute import precompute
from lcm_distill.stages.verify import Verification
from tests.conftest import SMALL
from tests.files import flip, shard_files

ARRAY = "latents_64/zarr.json"
WEIGHTS, CONFIG = "diffusion_pytorch_model.safetensors", "config.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run, and beside it the folder with its VAE."""
    place = tmp_path_factory.mktemp("made")
    shutil.copytree(assets.VAE, place / "vae")
    encode(place / "run", place / "vae")
    return place


@pytest.fixture
def vae(made):
    """The folder with the VAE, which is put back afterwards."""
    yield made / "vae"
    put_back(made / "vae")


@pytest.fixture
def run(made, tmp_path):
    """A copy of the run in which a shard of latents is not encoded yet."""
    shutil.copytree(made / "run", tmp_path / "run")
    cache = Cache.open(config_of(made / "vae"), RunFolder(tmp_path / "run"))
    cache.manifest.drop(["latents_64-00001"])
    cache.storage.remove("latents_64/c/1/0/0/0")
    return tmp_path / "run"


def config_of(vae):
    return load_preset("shapes", [*SMALL, "data.images=24", f"encoders.vae='{vae}'"])


def encode(run, vae):
    RunFolder(run).open(config_of(vae))
    list(precompute(config_of(vae), RunFolder(run)))


def repair(run, vae):
    verification = Verification(config_of(vae), RunFolder(run))
    list(verification.check())
    assert verification.damage
    list(verification.repair())


def attributes_of(run):
    return read_metadata(LocalStorage(run / "cache"), ARRAY, "")["attributes"]


def put_back(vae):
    shutil.copytree(assets.VAE, vae, dirs_exist_ok=True)


def other_weights(vae):
    tensors = load_file(vae / WEIGHTS)
    save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, vae / WEIGHTS)


def other_scaling(vae):
    change(vae, "scaling_factor", 0.5)


def a_shift(vae):
    change(vae, "shift_factor", 0.1)


def other_activation(vae):
    change(vae, "act_fn", "relu")


def change(vae, key, value):
    config = json.loads((vae / CONFIG).read_bytes())
    (vae / CONFIG).write_text(json.dumps({**config, key: value}))


CHANGES = {
    other_weights: r"other weights \(SHA-256 \w{16}\)",
    other_scaling: r"other scaling_factor \(0\.5\) than .*latents_64 was encoded with \(0\.55023\)",
    a_shift: r"other shift \(\[0\.1\]\) than .* \(None\)",
    other_activation: r"other configuration file \(SHA-256 \w{16}\)",
}


@pytest.mark.parametrize(
    ("alter", "array"),
    [(other_weights, "intact"), (other_weights, "damaged"), (other_weights, "gone"), (other_scaling, "intact"),
     (other_scaling, "gone"), (a_shift, "damaged"), (other_activation, "gone")],
)  # fmt: skip
def test_rows_of_two_encoders_are_not_mixed(made, vae, run, alter, array):
    if array == "damaged":
        flip(run / "cache" / ARRAY)
    if array == "gone":
        (run / "cache" / ARRAY).unlink()
    alter(vae)
    before = {path: path.read_bytes() for path in (run / "cache").rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=rf"^encoders\.vae = '.*/vae' has {CHANGES[alter]}.*: put those back, or"):
        (repair if array == "damaged" else encode)(run, vae)
    assert {path: path.read_bytes() for path in (run / "cache").rglob("*") if path.is_file()} == before
    put_back(vae)
    if array == "damaged":
        repair(run, vae)
    encode(run, vae)
    assert shard_files(run / "cache") == shard_files(made / "run/cache")
    assert attributes_of(run) == attributes_of(made / "run")


def test_a_vae_that_is_replaced_before_it_is_loaded_is_refused(vae, tmp_path, monkeypatch):
    real = encoding.require_same
    monkeypatch.setattr(encoding, "require_same", lambda *words: (other_weights(vae), real(*words)))
    with pytest.raises(UserError, match=r"^encoders\.vae = .* has other weights"):
        encode(tmp_path / "run", vae)


def test_a_cache_of_an_earlier_version_is_completed_and_not_called_what_it_may_not_be(vae, run):
    """Its commits lack the column, and its array's attributes are gone."""
    manifest = Cache.open(config_of(vae), RunFolder(run)).manifest
    for name in [file for file in manifest.loose_parts() if "latents" in file]:
        ((entry, rows),) = manifest.rows(name)
        (run / "cache" / name).write_bytes(encode_part(rows.drop_columns([encoder_provenance.ENCODED_BY]), [entry]))
    (run / "cache" / ARRAY).unlink()
    encode(run, vae)
    assert not {"weights_sha256", "scaling_factor", "encoder"} & attributes_of(run).keys()
    assert attributes_of(run)["transform"] == TRANSFORM
    rows = pq.read_table(run / "cache/manifest/latents_64-00001.parquet")
    (recorded,) = set(rows["encoded_by"].to_pylist())
    expected = identity(config_of(vae).encoders, "vae")
    assert json.loads(recorded) == {
        "scaling_factor": 0.55023, "transform": TRANSFORM, "batch_size": 8,
        **{key: expected[key][:16] for key in ("weights_sha256", "config_sha256")},
    }  # fmt: skip


def test_tokenizer_files_of_a_local_folder_belong_to_a_text_encoder(tmp_path):
    config = load_preset("shapes", [*SMALL, f"encoders.text='openclip:local-dir:{tmp_path}'"])
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {}, "_note": 1}')
    (tmp_path / "tokenizer.json").write_text("{}")
    known = identity(config.encoders, "text")
    assert set(known) == {"config_sha256", "tokenizer_sha256"}
    encoder_provenance.require_same(known, config.encoders, "text", "text")
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(UserError, match=r"^encoders\.text = .* has other tokenizer files .* than text was encoded"):
        encoder_provenance.require_same(known, config.encoders, "text", "text")
