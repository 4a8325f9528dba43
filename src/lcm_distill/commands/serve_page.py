# Gradio is an extra, and declares its types in part.
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingTypeStubs=false
# pyright: reportPrivateImportUsage=false, reportUnknownLambdaType=false
"""The page of `lcm serve`, in Gradio; what it shows is `stages.serve`'s."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lcm_distill.core.errors import UserError
from lcm_distill.stages.serve import MOST_CHARACTERS, MOST_PROMPTS, MOST_TEXT, Made, Studio

WAITING = 20
"""Requests that may wait; further ones are refused."""
KEPT = (600, 3600)
"""Seconds between two looks for images to delete, and from which age on."""
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "images", "concurrency_limit": 1}
PNG: dict[str, Any] = {"format": "png", "buttons": ["download", "fullscreen"]}
OVER_GUIDANCE = "Student over guidance, first caption"
"""Name of the strip, which new images of other captions empty."""
WITHOUT_TELEMETRY = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
STYLE = """
.grid-wrap.fixed-height { min-height: 0; max-height: none; }
.grid-container {
    --least: 200px; justify-items: center;
    grid-template-columns: repeat(auto-fit, minmax(var(--least), 1fr)) !important;
}
@media (max-width: 600px) { .grid-container { --least: 120px; } }
.grid-container .gallery-item { width: 100%; max-width: 400px; }
[data-testid="status-tracker"]:has(> .error) { display: none !important; }
.block label:has(+ .gallery-container), .gallery-container .caption-label { position: static !important; }
.gallery-container .thumbnail-lg { display: flex; flex-direction: column; aspect-ratio: auto; height: auto; }
.gallery-container .caption { white-space: normal; text-align: center; }
.gallery-container .caption-label { width: 100%; max-width: none; white-space: normal; border: 0; box-shadow: none; }
"""
"""Galleries are as high as their images, and show them all on a phone; an image alone is no larger than one of two.
A refusal, which a message tells, hides none. What is written of an image stands beside it, and covers nothing."""


def require_gradio() -> None:
    """Refuse to begin where Gradio is not installed.

    Raises:
        UserError: it is not.
    """
    if find_spec("gradio") is None:
        raise UserError("lcm serve needs gradio: pip install 'lcm-distill[ui]'")


def build_page(studio: Studio, images: Path) -> Any:
    """The page, `gradio.Blocks`, that shows a studio's images and keeps them in the folder `images` meanwhile."""
    os.environ.update(WITHOUT_TELEMETRY | {"GRADIO_TEMP_DIR": str(images)})
    import gradio as gr

    low, high, own = studio.steps
    least, most = studio.scales
    with gr.Blocks(title=f"lcm-distill: {studio.name}", analytics_enabled=False, delete_cache=KEPT) as page:
        gr.Markdown(f"# {studio.name}")
        text = gr.Textbox(
            studio.caption, label=f"Captions, one a line: {MOST_PROMPTS} at most, of {MOST_CHARACTERS} characters",
            lines=2, max_lines=MOST_PROMPTS, max_length=MOST_TEXT,
        )  # fmt: skip
        with gr.Row():
            steps = gr.Slider(low, max(high, low + 1), own, step=1, label="Steps", interactive=high > low)
            guidance = gr.Slider(least, most, studio.guidance, step=0.1, label="Guidance scale")
            seed = gr.Number(0, label="Seed")
        with gr.Row():
            draw = gr.Button("Generate", variant="primary")
            sweep = gr.Button("Strip over guidance")
        with gr.Row():
            student = gr.Gallery(label="Student", **PNG)
            teacher = gr.Gallery(label="Teacher", **PNG, visible=studio.teacher is not None)
        strip = gr.Gallery(label=OVER_GUIDANCE, **PNG)

        beside, over = _shown(studio, studio.beside, 2), _shown(studio, lambda *request: [studio.strip(*request)], 1)
        request = [text, steps, guidance, seed]
        drawn = draw.click(beside, request, [student, teacher], api_name="generate", **ONE_AT_A_TIME)
        drawn.success(lambda: gr.Gallery([], label=OVER_GUIDANCE), None, [strip], api_visibility="private")
        sweep.click(over, [text, steps, seed], [strip], api_name="strip", **ONE_AT_A_TIME)
    return page.queue(max_size=WAITING)


def serve_page(page: Any, host: str, port: int) -> str:
    """Begin to serve a page, in threads of this process; returns its address.

    Raises:
        UserError: the port is taken.
    """
    import gradio as gr

    plain = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port, share=False, quiet=True, theme=plain, prevent_thread_lock=True,
            ssr_mode=False, footer_links=[], enable_monitoring=False, run_history=False, css=STYLE,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"--port {port} of {host} cannot be opened: give another one") from error
    return address


def _shown(studio: Studio, make: Callable[..., list[Made]], places: int) -> Callable[..., Any]:
    """A function of a request, its text first, that fills so many galleries.

    Page and clients are told what a user can cause.
    """
    import gradio as gr

    def answer(*request: Any) -> Any:
        try:
            made = make(*request)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error
        if told := studio.unknown(request[0]):
            gr.Warning(told)
        galleries = [gr.Gallery(list(each.images), label=each.title) for each in made]
        galleries += [gr.skip()] * (places - len(made))
        return galleries if places > 1 else galleries[0]  # a list would be one gallery's images

    return answer
