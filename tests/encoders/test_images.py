# The types that diffusers declares do not describe what it returns.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false, reportPrivateImportUsage=false
"""VAEs in every form they come in give what diffusers gives."""

import json

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from lcm_distill import assets
from lcm_distill.core.errors import UserError
from lcm_distill.encoders import vae as forms
from lcm_distill.encoders.images import load_image_encoder
from tests.tensors import perturb, random_images, relative

SDXL = {
    **AutoencoderKL.load_config(assets.SDXL_VAE_CONFIG),
    "block_out_channels": (16, 32, 64, 64),  # 128, 256, 512, 512 in the real one
    "norm_num_groups": 16,
}
WEIGHTS = forms.WEIGHTS
LDM_NAMES = [
    (".down_blocks.", ".down."), (".up_blocks.0.", ".up.3."), (".up_blocks.1.", ".up.2."), (".up_blocks.2.", ".up.1."),
    (".up_blocks.3.", ".up.0."), (".mid_block.resnets.0.", ".mid.block_1."), (".mid_block.resnets.1.", ".mid.block_2."),
    (".mid_block.attentions.0.", ".mid.attn_1."), (".resnets.", ".block."), (".downsamplers.0.", ".downsample."),
    (".upsamplers.0.", ".upsample."), (".conv_shortcut.", ".nin_shortcut."), (".conv_norm_out.", ".norm_out."),
    (".group_norm.", ".norm."), (".to_q.", ".q."), (".to_k.", ".k."), (".to_v.", ".v."), (".to_out.0.", ".proj_out."),
]  # fmt: skip
OLD_NAMES = [(".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")]


def renamed(tensors, pairs):
    def rename(name):
        for new, old in pairs:
            name = name.replace(new, old)
        return name

    return {rename(name): tensor for name, tensor in tensors.items()}


def to_ldm(tensors):
    """Diffusers' names to those of the original code, where attention is a convolution of width one."""
    ldm = renamed(tensors, LDM_NAMES)
    return {
        name: tensor[:, :, None, None] if ".attn_1." in name and tensor.ndim == 2 else tensor
        for name, tensor in ldm.items()
    }


def whole_checkpoint(tensors):
    return {
        **{f"first_stage_model.{name}": tensor for name, tensor in to_ldm(tensors).items()},
        "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4),
        "conditioner.embedders.0.encoder.weight": torch.zeros(4),
    }


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    vae = AutoencoderKL(**SDXL).eval()
    perturb(vae)
    return vae


@pytest.fixture(scope="module")
def images():
    return random_images((2, 3, 64, 64), seed=1)


def mean_of(vae, images):
    with torch.inference_mode():
        return vae.encode(images).latent_dist.mean * 0.13025


@pytest.mark.parametrize("subfolder", ["", "vae"])
def test_folders_load_and_give_the_same(vae, tmp_path, subfolder):
    vae.save_pretrained(tmp_path / subfolder)
    encoder = load_image_encoder(str(tmp_path))
    assert (encoder.scaling_factor, encoder.channels, encoder.downsampling) == (0.13025, 4, 8)
    images, noise = torch.rand(2, 3, 64, 64) * 2 - 1, torch.randn(2, 4, 8, 8)
    with torch.inference_mode():
        posterior = vae.encode(images).latent_dist
        latents = (posterior.mean + posterior.std * noise) * 0.13025
        decoded = (vae.decode(latents / 0.13025).sample / 2 + 0.5).clamp(0, 1)
    encoded = encoder.encode(images, noise)
    assert relative(encoded, latents) < 1e-6
    assert relative(encoder.decode(latents), decoded) < 1e-6
    assert encoded.std() > 0.01  # scaled, and not all the same


@pytest.mark.parametrize("subfolder", ["", "vae"])
def test_folders_with_half_precision_weights_alone(vae, images, tmp_path, subfolder):
    vae.save_pretrained(tmp_path / subfolder, variant="fp16")
    assert (tmp_path / subfolder / forms.HALF_WEIGHTS).is_file()
    assert relative(load_image_encoder(str(tmp_path)).encode(images, torch.zeros(())), mean_of(vae, images)) < 1e-5


@pytest.mark.parametrize("config_beside", [True, False])
@pytest.mark.parametrize(
    "layout", [dict, lambda tensors: renamed(tensors, OLD_NAMES), to_ldm, whole_checkpoint], ids=lambda f: f.__name__
)
def test_single_files(vae, images, tmp_path, monkeypatch, layout, config_beside):
    config = tmp_path if config_beside else tmp_path / "shipped"
    vae.save_config(config)
    monkeypatch.setattr(assets, "SDXL_VAE_CONFIG", config)
    save_file(
        {name: tensor.contiguous() for name, tensor in layout(vae.state_dict()).items()}, tmp_path / "a.safetensors"
    )
    encoder = load_image_encoder(str(tmp_path / "a.safetensors"))
    assert relative(encoder.encode(images, torch.zeros(())), mean_of(vae, images)) < 1e-5


def test_original_names_are_those_of_diffusers_own_conversion(vae, images, tmp_path):
    vae.save_config(tmp_path)
    theirs = AutoencoderKL.from_single_file(to_ldm(vae.state_dict()), config=str(tmp_path), low_cpu_mem_usage=False)
    assert relative(mean_of(theirs, images), mean_of(vae, images)) < 1e-6


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument:UserWarning")  # diffusers' own
def test_hub_names_have_their_vae_in_a_subfolder_or_at_the_root(vae, tmp_path, monkeypatch):
    """From a cache of the hub without network, as one that was filled before."""
    commit = "0" * 40
    for name, subfolder in (("pipeline", "vae"), ("alone", "")):
        repository = tmp_path / f"models--someone--{name}"
        vae.save_pretrained(repository / "snapshots" / commit / subfolder)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    expected = sum(parameter.double().abs().sum().item() for parameter in vae.parameters())
    for name in ("pipeline", "alone"):
        loaded = forms.load_vae(f"someone/{name}")
        stored = sum(parameter.double().abs().sum().item() for parameter in loaded.parameters())
        assert stored == pytest.approx(expected, rel=1e-12)


def test_a_repository_without_the_subfolder_is_a_vae_itself(vae, tmp_path, monkeypatch):
    from huggingface_hub.errors import EntryNotFoundError

    def absent(repository, file):
        assert (repository, file) == ("someone/alone", "vae/config.json")
        raise EntryNotFoundError("404")

    opened = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", absent)
    monkeypatch.setattr(forms, "_hub_config", lambda *_: assets.VAE / forms.CONFIG)
    monkeypatch.setattr(forms, "_open", lambda *where, subfolder: opened.append((*where, subfolder)) or vae)
    forms.load_vae("someone/alone")
    assert opened == [("someone/alone", None)]


def test_half_precision_weights_are_raised(vae, tmp_path):
    AutoencoderKL(**SDXL).half().save_pretrained(tmp_path)
    assert load_image_encoder(str(tmp_path)).vae.dtype == torch.float32


def test_the_shipped_configuration_is_that_of_the_real_vae():
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(assets.SDXL_VAE_CONFIG))
    assert sum(parameter.numel() for parameter in vae.parameters()) == 83_653_863
    assert vae.config.scaling_factor == 0.13025 and vae.config.sample_size == 1024


def test_bfloat16_is_computed_in_and_close(vae, images, tmp_path):
    vae.save_pretrained(tmp_path)
    encoder, noise = load_image_encoder(str(tmp_path), dtype="bfloat16"), torch.randn(2, 4, 8, 8)
    assert {parameter.dtype for parameter in encoder.vae.parameters()} == {torch.bfloat16}
    low, exact = encoder.encode(images, noise), load_image_encoder(str(tmp_path)).encode(images, noise)
    assert low.dtype == torch.float32
    assert 1e-4 < relative(low, exact) < 2e-2
    assert encoder.decode(low).dtype == torch.float32
    # The draw itself is exact: what the noise adds is in proportion to it, to float32's precision.
    mean, single, double = (encoder.encode(images, factor * noise) for factor in (0, 1, 2))
    assert relative(double - mean, 2 * (single - mean)) < 1e-5


def test_float16_is_refused_where_the_vae_overflows_in_it(tmp_path):
    vae = AutoencoderKL(**SDXL)
    vae.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"encoders\.dtype = 'float16'.*set encoders\.dtype=bfloat16"):
        load_image_encoder(str(tmp_path), dtype="float16")
    vae.register_to_config(force_upcast=False)
    vae.save_pretrained(tmp_path)
    assert load_image_encoder(str(tmp_path), dtype="float16").vae.dtype == torch.float16


def test_tiling_encodes_large_images_tile_by_tile(vae, tmp_path, monkeypatch):
    vae.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"sample_size": 128}))
    tiled, whole = (load_image_encoder(str(tmp_path), tiling=tiling) for tiling in (True, False))
    sizes = []
    tiled.vae.encoder.register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].shape[-2:]))
    large = random_images((1, 3, 256, 192), seed=2)
    encoded = tiled.encode(large, torch.zeros(()))
    assert len(sizes) > 1 and max(max(size) for size in sizes) == 128
    assert encoded.shape == (1, 4, 32, 24) and encoded.isfinite().all()
    first = whole.encode(large[:, :, :128, :128], torch.zeros(()))
    assert relative(encoded[:, :, :12, :12], first[:, :, :12, :12]) < 1e-5  # no neighbour is blended in there
    # A tile does not see the others' pixels and statistics; this VAE's random weights make the most of it.
    assert relative(encoded, whole.encode(large, torch.zeros(()))) < 0.35


@pytest.mark.parametrize("form", ["hub", "folder", "file", "shapes"])
def test_random_weights_need_no_download_and_are_the_same_every_time(tmp_path, monkeypatch, form):
    AutoencoderKL(**SDXL).save_config(tmp_path)
    monkeypatch.setattr(assets, "SDXL_VAE_CONFIG", tmp_path)
    (tmp_path / "a.safetensors").touch()
    names = {"hub": "stabilityai/stable-diffusion-xl-base-1.0", "folder": str(tmp_path),
             "file": str(tmp_path / "a.safetensors"), "shapes": "shapes"}  # fmt: skip
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    one, other = (load_image_encoder(names[form], weights="random").vae.state_dict() for _ in range(2))
    assert torch.equal(torch.rand(4), expected)  # the global generator went on as if nothing had happened
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one["encoder.conv_in.weight"].shape[0] == (8 if form == "shapes" else 16)
    assert one["encoder.conv_in.weight"].std() > 0.01


@pytest.fixture
def broken(vae, tmp_path):
    """A folder in which `damage` leaves a VAE as a file and as a folder."""

    def damage(change, layout):
        vae.save_pretrained(tmp_path)
        tensors = layout(load_file(tmp_path / WEIGHTS))
        save_file({name: tensor.contiguous() for name, tensor in change(tensors).items()}, tmp_path / WEIGHTS)
        return tmp_path

    return damage


@pytest.mark.parametrize("target", [".", WEIGHTS])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: {k: t for k, t in tensors.items() if k != "encoder.conv_in.bias"},
         "missing weights: 1 (encoder.conv_in.bias); unexpected weights: none"),
        (lambda tensors: {**tensors, "encoder.more": torch.zeros(1)}, "unexpected weights: 1 (encoder.more)"),
        (lambda tensors: {**tensors, "encoder.conv_in.bias": torch.zeros(5)}, "encoder.conv_in.bias"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_an_error(broken, target, change, message):
    folder = broken(change, dict)
    with pytest.raises(UserError) as caught:
        load_image_encoder(str(folder / target))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value) and "hf download stabilityai/stable-diffusion-xl-base-1.0" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: {k: t for k, t in tensors.items() if k != "encoder.mid.attn_1.q.bias"}, "Missing key"),
        (lambda tensors: {**tensors, "decoder.more": torch.zeros(1)}, "1 weight is not part of a VAE of"),
        (lambda tensors: {**tensors, "encoder.down.3.block.5.conv1.bias": torch.zeros(1)}, "Unexpected key"),
        (lambda tensors: {**tensors, "encoder.conv_in.bias": torch.zeros(5)}, "size mismatch for encoder.conv_in.bias"),
        (lambda tensors: {"unet.weight": torch.zeros(1)}, "it holds no VAE"),
    ],
)
def test_original_weights_that_do_not_fit_are_an_error(broken, change, message):
    with pytest.raises(UserError) as caught:
        load_image_encoder(str(broken(change, to_ldm) / WEIGHTS))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut.safetensors", "cut.safetensors' cannot be loaded"),
        ("a.ckpt", "a single file must be a .safetensors"),
        ("absent.safetensors", "there is no such file or folder"),
        ("absent/absent/absent", "there is no such file or folder"),
        ("empty", "config.json"),
    ],
)
@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_what_is_not_there_is_one_line(tmp_path, name, message, weights):
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.safetensors").write_bytes(b"\x99" * 100)
    (tmp_path / "a.ckpt").write_bytes(b"PK")
    if weights == "random" and name in ("cut.safetensors", "a.ckpt"):
        return  # no weights are read
    with pytest.raises(UserError) as caught:
        load_image_encoder(str(tmp_path / name), weights)
    text = str(caught.value)
    assert message in text and "\n" not in text
    assert "--local-dir stable-diffusion-xl-base-1.0`" in text and "encoders.vae=stable-diffusion-xl-base-1.0" in text
