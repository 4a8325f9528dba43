"""Without network, a loader says what to do in one line, and other libraries say nothing beside it."""

import os
import subprocess
import sys

LOADERS = """
import huggingface_hub.utils._http as http
from lcm_distill.core.errors import UserError
from lcm_distill.encoders.text import load_text_encoder
from lcm_distill.encoders.vae import load_vae
from lcm_distill.metrics.registry import PROTOCOLS, open_protocol

http.time.sleep = lambda seconds: None  # between retries
loaders = {
    "vae": lambda: load_vae("stabilityai/stable-diffusion-xl-base-1.0"),
    "text": lambda: load_text_encoder("openclip:hf-hub:apple/DFN5B-CLIP-ViT-H-14-378"),
    **{name: lambda name=name: open_protocol(name) for name in PROTOCOLS if name != "shapes"},
}
for name, load in loaders.items():
    try:
        load()
    except UserError as error:
        print(f"{name}: {error}")
"""
REMEDIES = {
    "vae": "run `hf download stabilityai/stable-diffusion-xl-base-1.0",
    "text": "run `hf download apple/DFN5B-CLIP-ViT-H-14-378",
    **dict.fromkeys(["t2i-benchmark", "gigagan", "torch-fidelity", "pytorch-fid"], "fetch it from the releases of"),
    "fd-dinov2": "put config.json and model.safetensors of facebook/dinov2-large into a folder",
    **dict.fromkeys(["cmmd", "clip-vit-b-32", "clip-vit-g-14"], "fetch open_clip_model.safetensors elsewhere"),
}


def test_without_network_every_loader_says_one_line(tmp_path):
    homes = {name: str(tmp_path / name) for name in ("HF_HOME", "TORCH_HOME")}
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}  # the port that discards
    done = subprocess.run(
        [sys.executable, "-c", LOADERS], env={**os.environ, **homes, **nowhere}, capture_output=True, text=True
    )
    told = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert told.keys() == REMEDIES.keys() and all(REMEDIES[name] in told[name] for name in told)
    assert done.stderr == "" and done.returncode == 0
