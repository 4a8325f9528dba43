"""ComfyUI nodes: load a distilled student, or its teacher; encode captions; sample images.

Copy this folder into `ComfyUI/custom_nodes/`, and install lcm-distill into ComfyUI's Python.
"""

import torch
from comfy_api.latest import ComfyExtension, io

CATEGORY = "lcm-distill"
Model = io.Custom("LCM_DISTILL_MODEL")
Captions = io.Custom("LCM_DISTILL_CAPTIONS")


class LoadModel(io.ComfyNode):
    """A run folder or a student's file to a model on ComfyUI's device."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LcmDistillLoadModel",
            display_name="Load Few-Step Model",
            category=CATEGORY,
            description="A run folder of lcm-distill, a student's .safetensors file, or `shapes`, which ships.",
            inputs=[
                io.String.Input("path", default="shapes"),
                io.Combo.Input("role", options=["student", "teacher"], default="student"),
                io.Combo.Input("dtype", options=["bfloat16", "float32"], default="bfloat16"),
            ],
            outputs=[Model.Output(display_name="model")],
        )

    @classmethod
    def execute(cls, path: str, role: str, dtype: str) -> io.NodeOutput:
        from comfy.model_management import get_torch_device

        from lcm_distill.api import open_model

        return io.NodeOutput(open_model(path, role).to(get_torch_device(), getattr(torch, dtype)))


class EncodeCaptions(io.ComfyNode):
    """Lines of text to embeddings of captions, one image each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LcmDistillEncodeCaptions",
            display_name="Encode Captions",
            category=CATEGORY,
            description="Every line is a caption, and becomes one image of the batch.",
            inputs=[
                Model.Input("model"),
                io.String.Input("captions", multiline=True, default="a large red circle in the centre"),
            ],
            outputs=[Captions.Output(display_name="captions")],
        )

    @classmethod
    def execute(cls, model, captions: str) -> io.NodeOutput:
        return io.NodeOutput(model.encode([line.strip() for line in captions.splitlines() if line.strip()]))


class SampleImages(io.ComfyNode):
    """Embeddings of captions to images, in the model's own sampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LcmDistillSampleImages",
            display_name="Sample in Few Steps",
            category=CATEGORY,
            description="A student takes 1 to 8 steps at its own noise levels, a teacher Heun steps.",
            inputs=[
                Model.Input("model"),
                Captions.Input("captions"),
                io.Int.Input("steps", default=4, min=1, max=64),
                io.Float.Input("guidance", default=2.0, min=0.0, max=20.0, step=0.1),
                io.Int.Input("seed", default=0, min=0, max=2**64 - 1, control_after_generate=True),
            ],
            outputs=[io.Image.Output(display_name="images")],
        )

    @classmethod
    def execute(cls, model, captions: torch.Tensor, steps: int, guidance: float, seed: int) -> io.NodeOutput:
        images = model.sample(captions, steps, guidance, seed)
        return io.NodeOutput(images.movedim(1, -1).cpu())  # ComfyUI's images are (B, H, W, C) in [0, 1]


class LcmDistill(ComfyExtension):
    """The nodes of this folder."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [LoadModel, EncodeCaptions, SampleImages]


async def comfy_entrypoint() -> ComfyExtension:
    """What ComfyUI calls."""
    return LcmDistill()
