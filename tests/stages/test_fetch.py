# diffusers does not declare its classes as exported.
# pyright: reportPrivateImportUsage=false
"""Fetched encoders equal those they were fetched from, and finished folders are left alone."""

import json
import shlex
import socket

import pytest
import torch
from diffusers import AutoencoderKL

from lcm_distill import assets
from lcm_distill.encoders.images import load_image_encoder
from lcm_distill.encoders.text import load_text_encoder
from tests.command_line import lcm
from tests.openclip import small_clip, write_hub_folder

CAPTIONS = ["a red fox in the snow", ""]


@pytest.fixture
def models(tmp_path):
    """A full CLIP and a diffusers pipeline's folder, as `hf download` leaves them, and the options that name them."""
    (tmp_path / "clip").mkdir()
    clip = write_hub_folder(small_clip(), tmp_path / "clip", "open_clip_model.safetensors")
    AutoencoderKL.from_pretrained(assets.VAE, low_cpu_mem_usage=False).save_pretrained(tmp_path / "sdxl" / "vae")
    vae, text = str(tmp_path / "sdxl"), f"openclip:local-dir:{clip}"
    return vae, text, ["--preset", "microdit_xl_512", "--set", f"encoders.vae={vae}", "--set", f"encoders.text={text}"]


def test_what_it_prints_loads_to_the_same(models, tmp_path):
    vae, text, options = models
    to = tmp_path / "weights"
    planned = json.loads(lcm("fetch", *options, "--to", to, "--dry-run", "--json").stdout)
    assert planned["encoders.vae"] == {"from": vae, "to": str(to / "vae"), "done": False} and not to.exists()
    printed = shlex.split(lcm("fetch", *options, "--to", to).stdout)
    assert printed == ["--set", f"encoders.vae={to}/vae", "--set", f"encoders.text=openclip:local-dir:{to}/text"]
    settings = json.loads(lcm("fetch", *options, "--to", to, "--json").stdout)
    images, noise = torch.rand(1, 3, 64, 64) * 2 - 1, torch.randn(1, 8, 8, 8)
    one, other = (load_image_encoder(name).encode(images, noise) for name in (vae, settings["encoders.vae"]))
    assert torch.equal(one, other)
    one, other = (load_text_encoder(name) for name in (text, settings["encoders.text"]))
    assert torch.equal(one.encode(CAPTIONS), other.encode(CAPTIONS))
    assert all(torch.equal(other.tower.state_dict()[name], weight) for name, weight in one.tower.state_dict().items())


def test_text_only_and_finished_parts_are_left_alone(models, tmp_path, monkeypatch):
    _, text, options = models
    to = tmp_path / "weights"
    # What an interrupted fetch leaves; no process has this number.
    (to / f".writing-{2**22 + 1}@{socket.gethostname()}-text~").mkdir(parents=True)
    result = lcm("fetch", *options, "--to", to, "--text-only", "--json")
    assert json.loads(result.stdout) == {"encoders.text": f"openclip:local-dir:{to}/text"}
    assert sorted(path.name for path in to.iterdir()) == ["text"]
    before = (to / "text" / "open_clip_model.safetensors").stat().st_mtime_ns
    assert lcm("fetch", *options, "--to", to).exit_code == 0
    assert (to / "text" / "open_clip_model.safetensors").stat().st_mtime_ns == before and (to / "vae").is_dir()
    other = lcm("fetch", *options, "--to", to, "--set", "encoders.text=openclip:local-dir:elsewhere")
    assert other.exit_code == 2 and f"{to}/text holds {text}, not openclip:local-dir:elsewhere" in other.stderr


def test_a_folder_of_the_users_is_not_replaced(models, tmp_path):
    vae, _, options = models
    result = lcm("fetch", *options, "--to", vae)
    assert result.exit_code == 2 and "was not made by `lcm fetch`: choose another --to" in result.stderr
    assert load_image_encoder(vae)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "shapes"], "encoders.vae and encoders.text = 'shapes' ships with the package"),
        (
            ["--preset", "microdit_xl_512", "--text-only"],
            "`hf download apple/DFN5B-CLIP-ViT-H-14-378 --include 'open_clip*' --include '*token*' "
            "--local-dir DFN5B-CLIP-ViT-H-14-378`",
        ),
        (
            ["--preset", "microdit_xl_512"],
            "`hf download stabilityai/stable-diffusion-xl-base-1.0 --include 'vae/*' "
            "--local-dir stable-diffusion-xl-base-1.0`",
        ),
    ],
)
def test_what_cannot_be_fetched_is_one_line(tmp_path, monkeypatch, options, message):
    def unreachable(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("lcm_distill.encoders.vae._hub_subfolder", unreachable)
    monkeypatch.setattr("open_clip.pretrained.download_pretrained_from_hf", unreachable)
    result = lcm("fetch", *options, "--to", tmp_path / "weights")
    assert result.exit_code == 2 and message in result.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "weights" / "vae").exists() and not (tmp_path / "weights" / "text").exists()
