"""Generates an image with ONNX Runtime, without lcm-distill and PyTorch, from what `lcm export --format onnx` wrote.

python draw_with_onnx.py FOLDER "CAPTION" IMAGE.png [STEPS] [SEED]
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer

if not 4 <= len(sys.argv) <= 6:
    sys.exit('usage: python draw_with_onnx.py FOLDER "CAPTION" IMAGE.png [STEPS] [SEED]')
folder, caption, out = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
names = ("text_encoder", "student", "decoder")
for name in ("sampling.json", "tokenizer.json", *(f"{name}.onnx" for name in names)):
    if not (folder / name).is_file():
        sys.exit(f"{folder} has no {name}: give a folder that `lcm export --format onnx` wrote")
settings = json.loads((folder / "sampling.json").read_text())
steps = sys.argv[4] if len(sys.argv) > 4 else str(settings["default_steps"])
if steps not in settings["sigmas"]:
    sys.exit(f"no noise levels for {steps} steps: choose {', '.join(settings['sigmas'])}")
seed = sys.argv[5] if len(sys.argv) > 5 else "0"
if not seed.isdecimal():
    sys.exit(f"the seed is {seed}: give a whole number from 0 on")
random = np.random.default_rng(int(seed))
graphs = {name: onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in names}


def noise():
    return random.standard_normal((1, *settings["latents"]), np.float32)


tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(caption).ids
captions = graphs["text_encoder"].run(None, {"tokens": np.array([tokens])})[0]
guidance = np.float32([settings["guidance_scale"]])
sigmas, least = settings["sigmas"][steps], settings["sigma_min"]
x = np.float32(sigmas[0]) * noise()
for sigma, following in zip(sigmas, [*sigmas[1:], least], strict=True):
    inputs = {"latents": x, "sigma": np.float32([sigma]), "captions": captions, "guidance": guidance}
    clean = graphs["student"].run(None, inputs)[0]
    if settings["sampler"] == "consistency":  # fresh noise for the next step
        x = clean + np.float32((following**2 - least**2) ** 0.5) * noise()
    else:  # down the straight line between the noisy latents and the clean ones
        x = clean + np.float32((following - least) / (sigma - least)) * (x - clean)
image = graphs["decoder"].run(None, {"latents": x})[0][0]
Image.fromarray((image * 255).round().astype(np.uint8).transpose(1, 2, 0)).save(out)
