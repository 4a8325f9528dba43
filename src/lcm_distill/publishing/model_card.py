# huggingface_hub declares its types in part.
# pyright: reportUnknownMemberType=false
"""A model card: what the Hugging Face Hub reads of a model, and what people should know of it, made from the run."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcm_distill.config.run import stand_ins_among
from lcm_distill.core.errors import UserError
from lcm_distill.publishing.published_model import Published
from lcm_distill.report.caption_sets import caption_set_titles
from lcm_distill.report.figure_columns import FigureStyles, column_key, figure_columns, of_images
from lcm_distill.report.tables import CAPTION, figures_cells, markdown_table, sampling_title, stand_in_notice

TERMS = {
    "shapes": "Apache-2.0, part of lcm-distill",
    "journeydb": "JourneyDB's terms: research and other non-commercial use",
    "stabilityai/stable-diffusion-xl-base-1.0": "CreativeML Open RAIL++-M",
    "openclip:hf-hub:apple/DFN5B-CLIP-ViT-H-14-378": "Apple's licence for research use",
}
"""Terms of data and weights by the names that the configuration gives them."""
UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Terms:
    """What the person who publishes a model decides.

    Attributes:
        license: the Hub's name of a licence; None is Apache-2.0 where all parts are this package's own, and `other`
            elsewhere.
        base_model: repository of the teacher on the Hub.

    Raises:
        UserError: the Hub would refuse the name.
    """

    license: str | None = None
    base_model: str | None = None

    def __post_init__(self) -> None:
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.license):
            raise UserError(f"--license {self.license!r}: give the Hub's name of one, such as apache-2.0 or other")
        if self.base_model is not None and not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", self.base_model, re.ASCII):
            raise UserError(f"--base-model {self.base_model!r}: give a repository on the Hub, such as owner/name")


UNDECIDED = Terms()


@dataclass(frozen=True)
class Card:
    """What a card says beside what the model records itself.

    Attributes:
        rows: of the run's `metrics.parquet`: of any student, of its teacher and of real images. styles: of their
            figures.
        caption: that the card's code generates an image of.
        grid: the run's grid of images, if it shows the model's.
        training: facts of the training, by name; empty for a model from elsewhere.
        parts: names of data, VAE, text encoder and teacher as the configuration has them; None is unknown, as what a
            model from elsewhere was trained on is.
        environment: commit and versions that the model was made with.
    """

    rows: Sequence[Mapping[str, Any]]
    styles: FigureStyles
    caption: str
    grid: Path | None
    training: Mapping[str, object]
    parts: Mapping[str, str | None]
    environment: Mapping[str, object]
    terms: Terms


def card_text(
    model: Published, card: Card, name: str, library: str, usage: Mapping[str, str], image: str | None
) -> str:
    """The text of a card, Markdown with front matter.

    Args:
        name: of the model. library: that opens it.
        usage: code that generates an image with it, by the sentence before it.
        image: file name of the grid beside the card.
    """
    known = _rows_of(model, card.rows)
    sections = [
        f"# {name}",
        _summary(model, card),
        *stand_in_notice(stand_ins_among(card.parts)),
        *(
            [f"![Images of the same captions and noise, a model and number of steps in each column]({image})"]
            if image
            else []
        ),
        "## Use",
        *(f"{said}\n\n```python\n{code.strip()}\n```".strip() for said, code in usage.items()),
        f"## Figures\n\n{_figures(known, card)}",
        *([f"## Training\n\n{_table('setting', 'value', card.training)}"] if card.training else []),
        *([f"## Sampling\n\n{_sampling(model)}"] if model.sampling else []),
        f"## Parts and their terms\n\n{_parts(card.parts)}",
        f"## Provenance\n\n{_table('what', 'value', {'tensors, SHA-256': model.sha256, **card.environment})}",
    ]
    return f"---\n{_front_matter(model, card, known, name, library)}\n---\n\n" + "\n\n".join(sections) + "\n"


def _rows_of(model: Published, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows of these weights, and of what they are compared with: for a student the teacher and real images."""
    others = ("real", "teacher") if model.role == "student" else ("real",)
    own = [row for row in rows if row["model"] == model.role and row["checkpoint_sha256"] == model.sha256]
    return [*(row for row in rows if row["model"] in others), *own] if own else []


def _front_matter(model: Published, card: Card, rows: Sequence[Mapping[str, Any]], name: str, library: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    titles = {column.key: column.heading for column in figure_columns(rows, card.styles)}
    shown = of_images(rows)
    results = [
        EvalResult(
            task_type="text-to-image",
            dataset_type=_identifier(captions),
            dataset_name=captions,
            metric_type=row["metric"],
            metric_name=f"{titles[column_key(row)]}: {sampling_title(row['model'], row['sampler'], row['steps'])}, "
            f"guidance {row['guidance']:g}",
            metric_value=row["value"],
        )
        for row, captions in zip(shown, caption_set_titles(shown), strict=True)
        if row["model"] == model.role
    ]
    own = set(card.parts.values()) == {"shapes"}
    data = ModelCardData(
        library_name=library,
        pipeline_tag="text-to-image",
        license=card.terms.license or ("apache-2.0" if own else "other"),
        base_model=card.terms.base_model,
        tags=["lcm-distill", "microdit", *(["consistency-model", "distillation"] if model.sampling else [])],
        model_name=name,
        eval_results=results or None,
    )
    if card.terms.base_model:
        data["base_model_relation"] = "finetune"
    return data.to_yaml()


def _identifier(title: str) -> str:
    """A title as the Hub wants identifiers of data sets: of letters, digits, dots and hyphens."""
    return re.sub(r"[^\w.]+", "-", title.replace(",", ""))


def _summary(model: Published, card: Card) -> str:
    pixels = model.sizes.latent_size * model.encoders.downsampling
    kind = f"{model.sizes.arch} (arXiv 2407.15811), {pixels} x {pixels} pixels"
    if model.sampling is None:
        return f"A text-to-image diffusion model, {kind}, sampled with EDM's Heun method and classifier-free guidance."
    low, high = model.sampling.guidance_range or (None, None)
    guidance = "" if low is None else f", guidance scales from {low:g} to {high:g}"
    return (
        f"A few-step text-to-image model, {kind}{guidance}{_origin(card)}. Guidance is an input of the network, so a "
        "step is one evaluation."
    )


def _origin(card: Card) -> str:
    teacher = card.parts["teacher"]
    return f": the teacher {teacher} distilled with lcm-distill" if teacher else "; from which teacher is not recorded"


def _figures(rows: Sequence[Mapping[str, Any]], card: Card) -> str:
    if not rows:
        return "These weights were not evaluated."
    captions = "; ".join(dict.fromkeys(caption_set_titles(rows)))
    real = f" {CAPTION}" if any(row["model"] == "real" for row in rows) else ""
    unknown = card.parts["teacher"] is None and any(row["model"] == "teacher" for row in rows)
    beside = " The teacher is the one that it was evaluated beside; nothing tells whether it was made from it."
    sentence = f"Of images of {captions}.{real}{beside * unknown}"
    return f"{sentence}\n\n{markdown_table(*figures_cells(rows, card.styles))}"


def _sampling(model: Published) -> str:
    assert model.sampling is not None
    numbers = [model.sampling.default_steps] if model.sampling.phases else sorted(model.sampling.sigmas)
    samplers = [model.sampling.sampler(number) for number in numbers]
    cells = [[str(each.steps), each.name, " ".join(f"{sigma:g}" for sigma in each.sigmas)] for each in samplers]
    others = "" if model.sampling.phases else "\n\nOther numbers of steps take EDM's schedule."
    return markdown_table(["steps", "sampler", "sigmas"], cells) + others


def _parts(parts: Mapping[str, str | None]) -> str:
    cells = [
        [part, Path(name).name if Path(name).exists() else name, TERMS.get(name, "")] if name else [part, UNKNOWN, ""]
        for part, name in parts.items()
    ]
    note = "What may be done with this model depends on the terms of everything that it was made from."
    return f"{markdown_table(['part', 'name', 'terms'], cells)}\n\n{note}"


def _table(key: str, value: str, content: Mapping[str, object]) -> str:
    return markdown_table([key, value], [[name, str(found)] for name, found in content.items()])
