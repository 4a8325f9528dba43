"""The configuration of a run: typed, documented at each key and validated once, when it is loaded."""

import hashlib
import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from lcm_distill.errors import UserError

SCHEMA_VERSION = 3
"""Part of every fingerprint; raised when code starts to give other bytes for the same configuration."""

NOT_IDENTITY: dict[str, Any] = {"identity": False}
"""Marks a key that changes how work is done and never what comes out."""


Weights = Literal["pretrained", "random"]
Dtype = Literal["float32", "bfloat16", "float16"]
MetricProtocol = Literal[
    "shapes", "t2i-benchmark", "gigagan", "torch-fidelity", "pytorch-fid", "fd-dinov2", "cmmd", "clip-vit-b-32",
    "clip-vit-g-14",
]  # fmt: skip


class Section(BaseModel):
    """A table of the configuration; unknown keys are refused and values do not change once loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


AnySection = TypeVar("AnySection", bound=Section)


class DataConfig(Section):
    """Where pictures and captions come from."""

    source: Literal["shapes", "journeydb", "coco", "folder", "webdataset", "parquet"]
    """`journeydb`: a download of JourneyDB, extracted or not. `shapes`: the embedded default, drawn in the same layout.
    `coco`: MS-COCO's `annotations/captions_*.json`. `folder`: pictures with `metadata.jsonl`, or each beside a `.txt`
    or `.json` of its name. `webdataset`: tar archives. `parquet`: files with a column of picture bytes."""
    root: Path | None = Field(default=None, json_schema_extra=NOT_IDENTITY)
    """Folder of the data set; JourneyDB's holds `data/train/...`. Unset with `shapes`, pictures are drawn into the run
    folder."""
    archives: str | None = Field(default=None, pattern=r"^\d+(-\d+)?(,\d+(-\d+)?)*$")
    """Numbered archives of JourneyDB that are taken: `000-001` is one percent, `0-9,42` eleven of 200. Unset: all."""
    captions: dict[str, PositiveFloat] | None = None
    """Fields that captions come from, with their shares: `{prompt = 0.7, "Task2.Caption" = 0.3}`. The draw depends on
    the sample's name; where a record lacks the field, the next is taken. Unset: `prompt` (JourneyDB), `text`
    (`folder`), `txt` (`webdataset`), `caption` (`parquet`), `prompt` (`shapes`, whose
    `Task2.Caption` leaves much open); `coco` has its own."""
    pictures: PositiveInt = 8_000
    """How many pictures `shapes` draws. Other sources take all they find."""
    resolutions: list[PositiveInt] = Field(min_length=1)
    """Heights and widths, in pixels, that pictures are encoded at: short side resized, centre cropped. All are made in
    one pass over the pictures; which one trains is told by `model.latent_size`."""
    min_size: PositiveInt
    """Pictures whose shorter side is below this many pixels are quarantined."""
    valid_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of distinct captions whose pictures are held out of training."""

    @model_validator(mode="after")
    def _fits_source(self) -> Self:
        if self.archives is not None and self.source != "journeydb":
            raise ValueError(f"archives = {self.archives!r} goes with source journeydb, not {self.source}")
        if self.captions is not None and (self.source == "coco" or not self.captions):
            raise ValueError(f"captions = {self.captions} names no field of source {self.source}: leave it unset")
        return self

    def archive_numbers(self) -> frozenset[int] | None:
        """What `archives` stands for; None for all."""
        if self.archives is None:
            return None
        ranges = [part.split("-") for part in self.archives.split(",")]
        return frozenset(number for ends in ranges for number in range(int(ends[0]), int(ends[-1]) + 1))


class EncodersConfig(Section):
    """What turns pictures and captions into the tensors that training reads."""

    vae: str
    """`shapes`, a hub name (`stabilityai/stable-diffusion-xl-base-1.0`), a folder in diffusers' layout, or a
    `.safetensors` file: a VAE, or a whole SDXL checkpoint. A file has SDXL's configuration unless a `config.json` lies
    beside it."""
    text: str
    """`shapes`, or `openclip:` and a model name: `openclip:hf-hub:apple/DFN5B-CLIP-ViT-H-14-378`, or
    `openclip:local-dir:FOLDER`."""
    downsampling: PositiveInt = 8
    """Picture pixels to a latent pixel, along each side; that of the VAE."""
    weights: Weights = "pretrained"
    """`random`: the same networks with random weights from a fixed seed, without any download, for measuring speed. A
    hub's VAE then has SDXL's configuration, and `openclip:` takes any name that open_clip has built in."""
    dtype: Dtype = "float32"
    """What the VAE and the text tower's matrix products compute in; the posterior sample and the text tower's
    embeddings, norms and residual stream stay float32. SDXL's own VAE
    overflows in `float16` and is refused. A CPU without bfloat16 instructions is some 200 times slower in it."""
    tiling: bool = False
    """Encode a picture tile by tile where it is larger than the VAE's `sample_size` (1024 px for SDXL) and does not fit
    the memory by itself; it changes latents near the seams."""
    batch_size: PositiveInt = Field(default=64, json_schema_extra=NOT_IDENTITY)
    """Pictures or captions to one pass. A batch that does not fit the GPU's memory is halved until it does."""


class CacheConfig(Section):
    """How the encoded tensors lie on disk."""

    shard_rows: PositiveInt = 1_024
    """Rows to a shard file, which is also the unit of work that is committed."""
    location: str | None = Field(default=None, pattern=r"^(s3|gs)://[^/]+", json_schema_extra=NOT_IDENTITY)
    """Object store that the cache is made in: `s3://bucket/prefix` or `gs://bucket/prefix`. `lcm cache pull` copies it
    into the run folder, where training reads it. Unset: it is made in the run folder."""


class ModelConfig(Section):
    """The transformer, teacher and student alike."""

    arch: str
    """A variant by name: `MicroDiT_XL_2`, `MicroDiT_Tiny_2`, `MicroDiT_Nano_2`."""
    latent_size: PositiveInt
    """Height and width of the latents, in latent pixels."""
    in_channels: PositiveInt = 4
    """Channels of the latents."""
    caption_channels: PositiveInt = 1_024
    """Width of a caption token's embedding."""
    pos_interp_scale: PositiveFloat = 1.0
    """Divides token positions; 2.0 runs a 256 px network at 512 px."""
    teacher: str = Field(json_schema_extra=NOT_IDENTITY)
    """Path of the teacher's checkpoint (`.safetensors` or `.pt`), or the name of one that ships: `shapes`, or
    `shapes-brief` for captions that leave much open. What the file holds decides results, not where it lies:
    fingerprints take its hash."""


class DiffusionConfig(Section):
    """The noise levels everything agrees on (EDM, arXiv 2206.00364)."""

    sigma_min: PositiveFloat = 0.002
    """Lowest noise level."""
    sigma_max: PositiveFloat = 80.0
    """Highest noise level."""
    sigma_data: PositiveFloat = 0.9
    """Standard deviation of the scaled latents."""
    rho: PositiveFloat = 7.0
    """Curvature of the sampling schedule."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min} must lie below sigma_max {self.sigma_max}")
        return self


class OptimiserConfig(Section):
    """AdamW and its schedule: linear warm-up, constant, then linear to zero."""

    steps: PositiveInt
    """Optimiser steps."""
    batch_size: PositiveInt
    """Samples to a step."""
    learning_rate: PositiveFloat
    """Rate between warm-up and decay."""
    warmup_steps: NonNegativeInt = 20
    """Steps over which the rate rises from zero."""
    decay_fraction: float = Field(default=0.5, ge=0, le=1)
    """Share of the steps, at the end, over which the rate falls to zero."""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's averaging factors."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""
    moments: Literal["float32", "8bit"] = "float32"
    """How AdamW's moments are held. `8bit`: 2 bytes a parameter instead of 8, 256 values to a scale (arXiv 2110.02861,
    `pip install 'lcm-distill[eightbit]'`); the first step compiles the update."""
    clip_norm: PositiveFloat = 1.0
    """The gradient's norm is cut to this."""
    ema_exponent: float = Field(default=8.0, ge=0)
    """Width of the power-function average that is published (arXiv 2312.02696): larger follows more closely."""
    checkpoint_every: PositiveInt = Field(default=50, json_schema_extra=NOT_IDENTITY)
    """Steps between checkpoints; an interrupted run repeats fewer than this many."""

    def decayed(self, left: float) -> float:
        """Factor of the learning rate when a share `left` of the decay lies ahead, falling from 1 to 0."""
        return left


class EngineConfig(Section):
    """How a training uses its machines; the same for teacher and student."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """What networks compute in. `bfloat16`: products of the blocks alone; weights, their averages, norms, the residual
    stream, embeddings of noise levels and the last layer stay float32. Pairs of noise levels closer than 2 %
    (at sigma 1) to 6 % (at 0.1 and 80) differ by less than it rounds off (`benchmarks/precision.py`)."""
    sharding: Literal["none", "fsdp"] = Field(default="none", json_schema_extra=NOT_IDENTITY)
    """`none`: every rank holds whole networks, and gradients are averaged (DistributedDataParallel). `fsdp`: weights,
    averages and optimiser are split over the ranks (FSDP2)."""
    micro_batch: PositiveInt | None = Field(default=None, json_schema_extra=NOT_IDENTITY)
    """Samples to one pass of a rank, whose gradients are summed before a step. Unset: its whole share of the batch."""
    activation_checkpointing: bool = Field(default=False, json_schema_extra=NOT_IDENTITY)
    """Compute a block's activations again in the backward pass: far less memory for about a third more work."""
    keep_checkpoints: PositiveInt = Field(default=2, json_schema_extra=NOT_IDENTITY)
    """How many of the newest checkpoints stay on disk."""
    spike: float = Field(default=100.0, ge=0, json_schema_extra=NOT_IDENTITY)
    """Training stops where a loss exceeds the median of the last hundred by this factor. 0: only where it is not
    finite."""
    tensorboard: bool = Field(default=True, json_schema_extra=NOT_IDENTITY)
    """Write events for TensorBoard as well, into `tensorboard/` beside the Parquet ones."""
    wandb: str | None = Field(default=None, json_schema_extra=NOT_IDENTITY)
    """Project at Weights & Biases that events go to as well; the package `wandb` must be installed."""
    validate_every: PositiveInt | None = Field(default=None, json_schema_extra=NOT_IDENTITY)
    """Steps between validations of the student's average on held-out captions. Unset: none."""
    validation_images: PositiveInt = Field(default=64, json_schema_extra=NOT_IDENTITY)
    """Pictures to a validation, always of the same captions and noise."""

    @model_validator(mode="before")
    @classmethod
    def _without_compile(cls, values: Any) -> Any:
        """Configurations of older runs say `compile = false`."""
        if isinstance(values, dict) and "compile" in values:
            kept = cast(dict[str, Any], values).copy()
            if kept.pop("compile"):
                raise ValueError("compile is no key any more: kernels are fused without it on a GPU, leave it out")
            return kept
        return cast(Any, values)


class PretrainConfig(OptimiserConfig):
    """Training of a teacher by denoising."""

    start: str | None = Field(default=None, json_schema_extra=NOT_IDENTITY)
    """Checkpoint of an earlier stage to go on from, of any resolution; its hash is part of the training's identity.
    Unset: fresh weights."""
    caches: dict[str, PositiveFloat] = Field(default={}, json_schema_extra=NOT_IDENTITY)
    """Folders of other runs whose caches are mixed in, each with its share of the samples; this run's own cache has the
    rest, and is not made if there is none. What is in them and the shares are part of the training's identity."""
    mask_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of the patches that each step leaves out after the patch mixer (arXiv 2407.15811). Networks draw better
    after some steps with 0 at the end."""
    decay: Literal["linear", "cosine"] = "linear"
    """How the learning rate falls over the last `decay_fraction` of the steps."""
    decay_to: float = Field(default=0.0, ge=0, le=1)
    """Share of the learning rate that is left at the end."""
    sigma_mean: float
    """Mean of ln sigma."""
    sigma_std: PositiveFloat
    """Standard deviation of ln sigma."""
    caption_drop: float = Field(default=0.1, ge=0, le=1)
    """Share of samples trained on the null caption, which guidance needs."""

    @model_validator(mode="after")
    def _shares_leave_some(self) -> Self:
        if sum(self.caches.values()) > 1 + 1e-9:
            raise ValueError(f"caches = {self.caches}: shares must sum to 1 or less, the rest is this run's own cache")
        return self

    @property
    def own_share(self) -> float:
        """Share of the samples that comes from the run's own cache."""
        return max(0.0, round(1 - sum(self.caches.values()), 9))

    def decayed(self, left: float) -> float:
        """See `OptimiserConfig`."""
        shape = (1 - math.cos(math.pi * left)) / 2 if self.decay == "cosine" else left
        return self.decay_to + (1 - self.decay_to) * shape


class DiscreteConfig(Section):
    """Pairs of neighbouring points of a fixed grid (LCM, arXiv 2310.04378)."""

    points: int = Field(default=40, ge=2)
    """Points of the grid: EDM's schedule with `diffusion.rho`, from sigma_max to sigma_min."""
    skip: PositiveInt = 1
    """Points from one level of a pair to the other."""

    @model_validator(mode="after")
    def _skip_fits(self) -> Self:
        if self.skip >= self.points:
            raise ValueError(f"skip = {self.skip} leaves no pair on a grid of points = {self.points}: lower skip")
        return self


class TuningConfig(Section):
    """Pairs whose gap is proportional to the noise level (ECT, arXiv 2406.14548)."""

    gap_ratio: float = Field(default=0.75, gt=0, lt=1)
    """The nearer point of a pair lies at this share of the noisier one's sigma, at the start and at high noise."""
    halvings: NonNegativeInt = 0
    """How often the gap is halved while the student trains, at even intervals; ECT: 7 from a `gap_ratio` of 0.5."""
    widening: float = Field(default=0.0, ge=0)
    """Widens the gap at low noise, to 1 + widening / 2 times its size; ECT: 8."""
    snap_below: PositiveFloat = 0.02
    """Pairs whose nearer point falls below this sigma end at sigma_min."""
    weighting: Literal["even", "inverse_gap"] = "even"
    """`inverse_gap`: a pair weighs 1 over the difference of its noise levels, as in ECT."""


class ScmConfig(Section):
    """The limit of vanishing gaps (sCM, arXiv 2410.11081). It needs no solver, distance or average of the student."""

    normalisation: PositiveFloat = 0.1
    """c of the tangent's normalisation g / (|g| + c), |g| in root mean square of the latents."""
    warmup: float = Field(default=0.5, ge=0, le=1)
    """Share of the steps over which the student turns from its teacher's denoiser into a consistency function."""


class PhasedConfig(Section):
    """Consistency within phases of the trajectory (PCM, arXiv 2405.18407)."""

    edges: list[PositiveFloat] = [4.0, 1.5, 0.6]
    """Noise levels at which the trajectory is cut, falling. The student draws in one step more than there are edges,
    and in no other number."""
    gap_ratio: float = Field(default=0.75, gt=0, lt=1)
    """The nearer point of a pair lies at this share of the noisier one's sigma, or at the phase's end."""


class MatchingConfig(Section):
    """Distribution matching beside the objective (DMD, arXiv 2311.18828). It needs captions alone."""

    weight: float = Field(default=0.0, ge=0)
    """Weight of the term; 0 leaves it out, and the critic with it."""
    start: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps over which the critic learns by itself what the student draws."""
    guidance_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the guidance beyond 1 that the teacher keeps where drawings are compared with it. With all of it they
    agree with captions at the cost of variety."""
    critic_rate: PositiveFloat = 4.0
    """The critic's learning rate in multiples of the student's."""
    sigmas: list[PositiveFloat] = [80.0, 8.0, 2.0, 0.5]
    """Noise levels, falling, that the student jumps from in training; a batch takes the first few of them."""
    sigma_mean: float = -0.2
    """Mean of ln sigma of the levels at which critic and teacher are compared."""
    sigma_std: PositiveFloat = 1.4
    """Standard deviation of that ln sigma."""


class LoraSettings(Section):
    """Low-rank adapters in place of training all weights (LoRA, arXiv 2106.09685), for a small card."""

    rank: NonNegativeInt = 0
    """Rank of the adapters on attention and dense feed-forwards; 0 trains all weights and has no adapters."""
    alpha: PositiveFloat = 64.0
    """An adapter's product counts alpha / rank times."""


class DistillConfig(OptimiserConfig):
    """Training of the few-step student."""

    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Seed of this training alone: order of samples, noise, noise levels, guidance scales and a guidance embedder that
    starts at random. Data, held-out captions and the noise that is drawn from stay those of the run's `seed`, which
    also serves here if this is unset."""
    objective: Literal["tuning", "discrete", "scm", "phased"] = "tuning"
    """What the student is trained to do. Each has a table of its own below; those of the others do nothing."""
    solver: Literal["euler", "heun"] = "euler"
    """How the teacher steps from one point of a pair to the other: asked once, or twice."""
    distance: Literal["huber", "l2"] = "huber"
    """How the answers at a pair's two points are compared: pseudo-Huber, or the mean square."""
    huber: PositiveFloat = 0.03
    """Where the pseudo-Huber distance turns from squared to absolute, in root mean square of the latents."""
    target_decay: float = Field(default=0.95, ge=0, lt=1)
    """Decay of the average of the student that says what a pair's nearer point maps to. 0: the student itself,
    without a gradient, as in ECT."""
    guidance_range: tuple[float, float]
    """Guidance scales the student is trained to answer to, drawn uniformly."""
    guidance_embedder: Literal["zero", "random"] = "zero"
    """How the embedding of the guidance scale starts. `zero`: the student starts as its teacher. `random`: with
    weights like the time embedding's."""
    levels: Literal["lognormal", "uniform"] = "lognormal"
    """How the noise level of a pair's noisier point is drawn: as `sigma_mean`, `sigma_std` and `sigma_max_share` say,
    or evenly over EDM's schedule with `diffusion.rho`. `discrete` rounds it up to a point of its grid."""
    sigma_mean: float = 0.0
    """Mean of ln sigma of lognormal levels."""
    sigma_std: PositiveFloat = 1.8
    """Standard deviation of ln sigma of lognormal levels."""
    sigma_max_share: float = Field(default=0.1, ge=0, le=1)
    """Share of lognormal levels that is moved to sigma_max, where one-step sampling starts."""
    publish: Literal["average", "raw"] = "average"
    """The weights that are published and sampled: the power-function average of `ema_exponent`, or the last ones."""
    discrete: DiscreteConfig = DiscreteConfig()
    """For `objective = "discrete"`."""
    tuning: TuningConfig = TuningConfig()
    """For `objective = "tuning"`."""
    scm: ScmConfig = ScmConfig()
    """For `objective = "scm"`."""
    phased: PhasedConfig = PhasedConfig()
    """For `objective = "phased"`."""

    matching: MatchingConfig = MatchingConfig()
    """Makes few-step drawings as likely as the teacher's own, beside any objective."""
    lora: LoraSettings = LoraSettings()
    """Trains adapters and the guidance embedder alone. The student is published merged, and as the run's `adapter/`."""

    @model_validator(mode="after")
    def _range_ordered(self) -> Self:
        low, high = self.guidance_range
        if not 1 <= low <= high:
            raise ValueError(f"guidance_range {[low, high]} must hold two values, 1 or more, the lower first")
        return self

    @property
    def middle_guidance(self) -> float:
        """The middle of `guidance_range`."""
        return sum(self.guidance_range) / 2


class ScheduleConfig(Section):
    """The search for the noise levels that a student jumps from."""

    steps: list[PositiveInt] = [1, 2, 3, 4, 5, 8]
    """Numbers of steps that get levels of their own."""
    samples: PositiveInt = 1_000
    """Drawings of training captions to a trial."""


def _one_is_a_list(value: Any) -> Any:
    return cast(list[Any], value) if isinstance(value, list) else [value]


class EvaluateConfig(Section):
    """Which pictures are generated and measured."""

    prompts: str = "held-out"
    """`held-out`: captions of the data set that training never sees. Or a file of captions: text2image-benchmark's
    `.csv` (image_id,text), COCO's `captions_val2014.json`, `PartiPrompts.tsv`, or a `.txt` with one a line."""
    images: PositiveInt = 2_000
    """Pictures to a figure, one a caption. Held-out captions repeat when there are fewer; a file must have as many."""
    models: list[Literal["teacher", "student"]] = Field(default=["teacher", "student"], min_length=1)
    """Which are drawn and measured. Figures of the other, measured before, stay in the table."""
    guidance: Annotated[
        list[Annotated[float, Field(ge=1, allow_inf_nan=False)]], BeforeValidator(_one_is_a_list), Field(min_length=1)
    ]
    """Guidance scales, for teacher and student alike; a number stands for a list of one. Of several, the first is that
    of `grid.png`, and figures against the scale are written to `guidance.parquet`, `.md` and `.png`."""
    teacher: list[tuple[Literal["euler", "heun"], PositiveInt]]
    """Solver and steps of each teacher that is measured."""
    student_steps: list[PositiveInt]
    """Steps of each student that is measured; each needs an entry in `student_sigmas`, but for a phased student's."""
    student_sigmas: dict[PositiveInt, list[PositiveFloat]]
    """Noise levels the student jumps from, falling, by number of steps. A phased student jumps from its edges."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Seed of the noise that pictures are drawn from; the run's `seed` if unset."""
    same_noise: bool = False
    """Draw every picture from the same noise, as the figures of text2image-benchmark were made."""
    protocols: list[MetricProtocol] = []
    """How pictures are stored, prepared, looked at and measured. None: pictures only."""
    reference: dict[MetricProtocol, Path] = Field(default={}, json_schema_extra=NOT_IDENTITY)
    """What pictures are compared with, by protocol: an `.npz` of mean and covariance (`mu`, `sigma`), or a folder of
    real pictures. Protocols that are not named here take the real pictures of held-out captions."""
    weights: dict[MetricProtocol, Path] = Field(default={}, json_schema_extra=NOT_IDENTITY)
    """File of the network's weights, by protocol. Unset: where its library keeps them."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What transformer and VAE compute in while images are generated; noise and solver steps stay float32. `auto`:
    bfloat16 on CUDA devices, float32 on CPUs. What it comes to is part of the images' identity."""
    batch_size: PositiveInt = Field(default=250, json_schema_extra=NOT_IDENTITY)
    """Images to one pass. A batch that does not fit the GPU's memory is halved until it does."""
    shard_images: PositiveInt = Field(default=500, json_schema_extra=NOT_IDENTITY)
    """Pictures that are generated and committed together, and later measured together."""

    @model_validator(mode="after")
    def _sigmas_fit(self) -> Self:
        for steps, sigmas in self.student_sigmas.items():
            if len(sigmas) != steps or sorted(sigmas, reverse=True) != sigmas:
                raise ValueError(f"student_sigmas.{steps} = {sigmas} must be {steps} falling noise levels")
        return self

    @model_validator(mode="after")
    def _nothing_twice(self) -> Self:
        for name in ("models", "guidance", "teacher", "student_steps", "protocols"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} = {values} names one twice")
        return self


class Config(Section):
    """A whole run."""

    preset: str
    """Name of the preset this came from."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of everything random. 0 is a seed like any other."""
    device: str = Field(default="auto", json_schema_extra=NOT_IDENTITY)
    """`auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1` ..."""
    data: DataConfig
    encoders: EncodersConfig
    cache: CacheConfig = CacheConfig()
    model: ModelConfig
    diffusion: DiffusionConfig = DiffusionConfig()
    engine: EngineConfig = EngineConfig()
    pretrain: PretrainConfig | None = None
    distill: DistillConfig
    schedule: ScheduleConfig = ScheduleConfig()
    evaluate: EvaluateConfig

    @model_validator(mode="after")
    def _resolutions_fit(self) -> Self:
        wanted, downsampling = self.data.resolutions, self.encoders.downsampling
        if odd := [pixels for pixels in wanted if pixels % downsampling]:
            raise ValueError(
                f"data.resolutions has {odd[0]}, which encoders.downsampling {downsampling} does not divide"
            )
        if len(set(wanted)) < len(wanted):
            raise ValueError(f"data.resolutions = {wanted} names a resolution twice")
        if self.resolution not in wanted:
            raise ValueError(
                f"model.latent_size {self.model.latent_size} stands for {self.resolution} px, "
                f"which data.resolutions = {wanted} lacks"
            )
        return self

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        edges, levels = self.distill.phased.edges, self.diffusion
        cuts = [levels.sigma_max, *edges, levels.sigma_min]
        if any(upper <= lower for upper, lower in pairwise(cuts)):
            raise ValueError(
                f"distill.phased.edges = {edges} must fall, and lie between diffusion.sigma_max {levels.sigma_max} "
                f"and diffusion.sigma_min {levels.sigma_min}"
            )
        return self

    @model_validator(mode="after")
    def _student_can_be_measured(self) -> Self:
        wanted, known = self.evaluate.student_steps, self.evaluate.student_sigmas
        if self.distill.objective == "phased":
            steps = len(self.distill.phased.edges) + 1
            if wanted != [steps]:
                raise ValueError(
                    f"evaluate.student_steps = {wanted}, but with distill.objective phased the student draws in "
                    f"{steps} steps, one more than distill.phased.edges has: set evaluate.student_steps=[{steps}]"
                )
        elif absent := [steps for steps in wanted if steps not in known]:
            raise ValueError(f"evaluate.student_steps has {absent[0]}, student_sigmas does not: add its noise levels")
        return self

    @model_validator(mode="after")
    def _engine_fits(self) -> Self:
        if self.distill.objective == "scm" and self.engine.sharding == "fsdp":
            raise ValueError(
                "distill.objective scm takes derivatives in forward mode, which engine.sharding cannot: leave it unset"
            )
        return self

    @property
    def resolution(self) -> int:
        """Height and width of the pictures that train and are drawn, in pixels."""
        return self.model.latent_size * self.encoders.downsampling

    @property
    def distill_seed(self) -> int:
        """Seed of the student's training."""
        return self.seed if self.distill.seed is None else self.distill.seed

    @property
    def draw_seed(self) -> int:
        """Seed of the noise that `lcm evaluate` draws from."""
        return self.seed if self.evaluate.seed is None else self.evaluate.seed

    @property
    def stand_ins(self) -> list[str]:
        """Parts that are those of the embedded default, and so worth nothing but to compare with each other."""
        parts = {
            "data": self.data.source,
            "VAE": self.encoders.vae,
            "text encoder": self.encoders.text,
            "teacher": self.model.teacher,
        }
        return [name for name, value in parts.items() if value in ("shapes", "shapes-brief")]

    def fingerprint(self, *sections: str) -> str:
        """16 hex digits over the seed, the schema version and every key of `sections` that changes results."""
        identity = {name: _identity(getattr(self, name)) for name in sections}
        return digest({"schema": SCHEMA_VERSION, "seed": self.seed, **identity})

    def deviations(self, other: "Config", sections: Iterable[str]) -> dict[str, tuple[Any, Any]]:
        """Own value and other's of every key of `sections` (or `seed`) that changes results and is not equal.

        A key that only one of them has, such as the noise levels of a number of steps, is None in the other.
        """
        ours, theirs = ({name: _identity(getattr(config, name)) for name in sections} for config in (self, other))
        flat, other_flat = dict(_flatten(ours)), dict(_flatten(theirs))
        return {
            key: (flat.get(key), other_flat.get(key))
            for key in sorted(flat.keys() | other_flat.keys())
            if flat.get(key) != other_flat.get(key)
        }

    def differences(self, other: "Config", sections: Iterable[str]) -> list[str]:
        """`deviations` in words: `key = value, not other's`."""
        deviations = self.deviations(other, sections)
        return [f"{key} = {own!r}, not {others!r}" for key, (own, others) in deviations.items()]

    def changed(self, assignments: Sequence[str], origin: str) -> "Config":
        """This configuration, changed by `section.key=value` assignments.

        Raises:
            UserError: a key or a value is wrong; the message begins with `origin`.
        """
        return parse(self.to_toml(), origin, assignments)

    def to_toml(self) -> str:
        """The resolved configuration; loading it gives an equal one."""
        import tomli_w

        values = self.model_dump(mode="json", exclude_none=True)
        return tomli_w.dumps(values)


def digest(value: Any) -> str:
    """16 hex digits of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def presets() -> list[str]:
    """Names of the presets that ship."""
    folder = resources.files("lcm_distill") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_preset(name: str, assignments: Sequence[str] = ()) -> Config:
    """A preset by name, changed by `section.key=value` assignments.

    Raises:
        UserError: the preset, a key or a value is wrong.
    """
    if name not in presets():
        raise UserError(f"unknown preset {name!r}: choose one of {', '.join(presets())}")
    text = (resources.files("lcm_distill") / "presets" / f"{name}.toml").read_text()
    return parse(text, f"preset {name}", assignments)


def load_file(path: Path, assignments: Sequence[str] = ()) -> Config:
    """A configuration file in the presets' form, changed by `section.key=value` assignments.

    Raises:
        UserError: the file is missing, or a key or value is wrong.
    """
    if not path.is_file():
        raise UserError(f"configuration {path} is missing")
    return parse(path.read_text(), str(path), assignments)


def parse(text: str, origin: str, assignments: Sequence[str] = ()) -> Config:
    """A configuration from TOML text; `origin` names it in errors."""
    values = read_toml(text, origin)
    for assignment in assignments:
        _assign(values, assignment)
    return validate(Config, values, origin)


def read_toml(text: str, origin: str) -> dict[str, Any]:
    """Tables of TOML text, not validated.

    Raises:
        UserError: it is not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{origin} is not TOML: {error}") from error


def validate(kind: type[AnySection], values: Mapping[str, Any], origin: str) -> AnySection:
    """A section from its values.

    Raises:
        UserError: keys or values are wrong; one line names them all.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{origin}: " + "; ".join(_explain(kind, detail) for detail in error.errors())) from error


def _assign(values: dict[str, Any], assignment: str) -> None:
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise UserError(f"--set {assignment}: write section.key=value")
    *tables, last = key.strip().split(".")
    section = values
    for table in tables:
        if not isinstance(section.setdefault(table, {}), dict):
            raise UserError(f"--set {assignment}: {table} is a value, not a section")
        section = section[table]
    section[last] = _toml_value(text.strip())


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word is a string, as it is in a shell


def _explain(kind: type[Section], detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"unknown key {key}{_suggestion(kind, detail['loc'])}"
    if detail["type"] == "missing":
        return f"{key} is missing"
    value = "" if detail["type"] == "value_error" and isinstance(detail["input"], dict) else f" = {detail['input']!r}"
    named = f"{key}{value}: " if key else ""  # what spans several tables names its keys itself
    return named + detail["msg"].removeprefix("Value error, ")


def _suggestion(kind: type[Section], location: Iterable[str | int]) -> str:
    *tables, last = (str(part) for part in location)
    section: Any = kind
    for table in tables:
        field = section.model_fields.get(table) if hasattr(section, "model_fields") else None
        section = getattr(field, "annotation", None)
    known = list(getattr(section, "model_fields", {}))
    close = get_close_matches(last, known, n=1)
    return f": did you mean {close[0]}?" if close else f": known keys are {', '.join(known)}" if known else ""


def _identity(value: Any) -> Any:
    if not isinstance(value, BaseModel):
        return value
    fields = type(value).model_fields
    return {
        name: _identity(getattr(value, name))
        for name, field in fields.items()
        if field.json_schema_extra != NOT_IDENTITY
    }


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(cast(Mapping[str, Any], value), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
