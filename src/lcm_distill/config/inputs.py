"""Data, encoders, cache, network and noise levels: what a training starts from."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from lcm_distill.config.ranges import Channels, LatentSize, Sigma
from lcm_distill.config.section import (
    ADDED,
    BY_CONTENT,
    IDENTITY,
    OLD_NAME,
    ON_RESUME,
    ROUNDS,
    OnResume,
    Section,
)

Weights = Literal["pretrained", "random"]
Dtype = Literal["float32", "bfloat16", "float16"]


class DataConfig(Section):
    """Where images and captions come from."""

    source: str
    """Format of the data set. `journeydb`: a download of JourneyDB, extracted or not. `shapes`: the embedded default,
    synthetic images in the same layout. `coco`: MS-COCO's `annotations/captions_*.json`. `folder`: images with
    `metadata.jsonl`, `.csv` or `.parquet`, or each with a `.txt` or `.json` of its name. `webdataset`: tar archives.
    `parquet`: files with a column of image bytes."""
    root: Path | None = Field(default=None, json_schema_extra=BY_CONTENT)
    """Folder of the data set; JourneyDB's contains `data/train/...`. Unset with `shapes`: images are generated in the
    run folder. A data set that has moved may be named where it is now; another folder while the first one is still
    there is refused, as images of both would be mixed."""
    archives: str | None = Field(default=None, pattern=r"^\d+(-\d+)?(,\d+(-\d+)?)*$")
    """Numbered archives of JourneyDB to use: `000-001` is one percent, `0-9,42` eleven of 200. Unset: all."""
    captions: dict[Annotated[str, Field(min_length=1)], PositiveFloat] | None = Field(default=None, min_length=1)
    """Fields or columns that captions come from, with their shares: `{prompt = 0.7, "Task2.Caption" = 0.3}`; a dot
    leads into a nested record. The choice is a function of the sample's name, also that among a list of captions; where
    a record lacks the field, the next is used. `data.caption_column = NAME` is short for `{NAME = 1}`. Unset: `prompt`
    (JourneyDB), `text` (`folder`), `txt` (`webdataset`), `caption` (`parquet`), and of `shapes` the example above the
    other way round, `{prompt = 0.3, "Task2.Caption" = 0.7}`; `coco` has captions of its own."""
    captions_per_image: Literal["one", "all"] = Field(default="one", json_schema_extra=ADDED)
    """`one`: one of an image's captions is drawn, by its name; of `coco` it is the first. `all`: each is a sample of
    its own, of a row of its own, whatever the shares of `captions`; the first of them decides whether they are held
    out."""
    caption_suffixes: list[Annotated[str, Field(pattern=r"^[^/]+$")]] | None = Field(
        default=None, min_length=1, json_schema_extra=ADDED
    )
    """What follows an image's name, without its own suffix, in the names of its caption files, in a `folder` or
    `webdataset`: `["_caption.txt", "_InternVL2-26B.json"]`; of fields that several have, the last counts. Unset:
    `.cap`, `.caption`, `.txt`, `.json`."""
    image_column: str | None = Field(default=None, min_length=1, json_schema_extra=ADDED)
    """Column of the images, where it has another name than usual: the path in the metadata files of a `folder`
    (`file_name`), which may be nested, `image.path`; the bytes in `parquet` (unset: the only column of bytes)."""
    images: PositiveInt = Field(default=8_000, json_schema_extra={OLD_NAME: "pictures"})
    """Number of images of `shapes`. Other sources use all they have."""
    resolutions: list[PositiveInt] = Field(min_length=1)
    """Heights and widths in pixels that images are encoded at: short side resized, centre cropped. All are encoded in
    one pass over the images; `model.latent_size` selects the one for training."""
    min_size: PositiveInt
    """Images whose shorter side is below this many pixels are quarantined."""
    valid_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of distinct captions whose images are held out of training."""

    @model_validator(mode="before")
    @classmethod
    def _read_caption_column(cls, values: Any) -> Any:
        given: Any = cast(dict[str, Any], values).copy() if isinstance(values, dict) else values
        if not isinstance(values, dict) or "caption_column" not in values:
            return given
        column = given.pop("caption_column")
        if not isinstance(column, str) or not column:
            raise ValueError(f"data.caption_column = {column!r}: write the name of a column")
        if given.get("captions") not in (None, {column: 1.0}):
            raise ValueError(f"data.caption_column = {column!r} and data.captions are both set: leave one out")
        return {**given, "captions": {column: 1.0}}

    def archive_numbers(self) -> frozenset[int] | None:
        """The numbers in `archives`; None for all."""
        if self.archives is None:
            return None
        ranges = [part.split("-") for part in self.archives.split(",")]
        return frozenset(number for ends in ranges for number in range(int(ends[0]), int(ends[-1]) + 1))


class EncodersConfig(Section):
    """What turns images and captions into the tensors that training reads."""

    vae: str
    """`shapes`, a hub name (`stabilityai/stable-diffusion-xl-base-1.0`), a folder in diffusers' layout, or a
    `.safetensors` file: a VAE, or a whole SDXL checkpoint. A file has SDXL's configuration unless a `config.json` lies
    beside it."""
    text: str
    """`shapes`, or `openclip:` and a model name: `openclip:hf-hub:apple/DFN5B-CLIP-ViT-H-14-378`, or
    `openclip:local-dir:FOLDER`."""
    downsampling: PositiveInt = 8
    """Image pixels per latent pixel along each side; a property of the VAE."""
    weights: Weights = "pretrained"
    """`random`: the same networks with random weights from a fixed seed, without any download, for measuring speed. A
    hub's VAE then has SDXL's configuration, and `openclip:` accepts any of open_clip's built-in names."""
    dtype: Dtype = "float32"
    """Dtype of the VAE and of the text tower's matrix products; the posterior sample and the text tower's embeddings,
    norms and residual stream stay float32. SDXL's own VAE overflows in `float16` and is refused. A CPU without
    bfloat16 instructions is some 200 times slower in bfloat16."""
    tiling: bool = False
    """Encode an image tile by tile where it is larger than the VAE's `sample_size` (1024 px for SDXL) and does not fit
    the memory by itself; it changes latents near the seams."""
    batch_size: PositiveInt = Field(default=64, json_schema_extra=ROUNDS)
    """Images or captions per batch. A batch that does not fit the GPU's memory is halved until it does. The cache
    records it, and a repair takes what was recorded: another one changes rows in rounding."""


class CacheConfig(Section):
    """How the encoded tensors are stored."""

    shard_rows: PositiveInt = 1_024
    """Rows per shard file, which is also the unit of work that is committed."""
    location: str | None = Field(
        default=None,
        pattern=r"^(s3|gs)://[^/]+",
        json_schema_extra={IDENTITY: False, ON_RESUME: OnResume.NEW_WORK},
    )
    """Object store of the cache: `s3://bucket/prefix` or `gs://bucket/prefix`. `lcm cache pull` copies it into the run
    folder, where training reads it. Unset: the run folder."""
    run: Path | None = Field(default=None, json_schema_extra=BY_CONTENT)
    """Folder of another run whose cache this run reads and never writes; of a new run it is what `--cache RUN` is.
    `seed`, `[data]`, `[encoders]` and `cache.shard_rows` must be that run's. A cache that has changed since a training
    here began with it is refused. Kept as an absolute path. Unset: this run has its own."""

    @field_validator("run")
    @classmethod
    def _found_from_anywhere(cls, run: Path | None) -> Path | None:
        return run and run.absolute()

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.location is not None and self.run is not None:
            raise ValueError(f"location = {self.location!r} and run = '{self.run}' exclude each other: leave one out")
        return self


class NetworkConfig(Section):
    """The sizes of a transformer."""

    arch: str
    """A variant by name: `MicroDiT_XL_2`, `MicroDiT_Tiny_2`, `MicroDiT_Nano_2`."""
    latent_size: LatentSize
    """Height and width of the latents, in latent pixels."""
    in_channels: Channels = 4
    """Channels of the latents."""
    caption_channels: Channels = 1_024
    """Width of a caption token's embedding."""
    pos_interp_scale: PositiveFloat = 1.0
    """Divides token positions; 2.0 runs a 256 px network at 512 px."""


class ModelConfig(NetworkConfig):
    """The transformer, teacher and student alike."""

    teacher: str = Field(json_schema_extra=BY_CONTENT)
    """Path of the teacher's checkpoint (`.safetensors` or `.pt`), or the name of the one that ships: `shapes`.
    Fingerprints use the file's hash, not its path."""


class DiffusionConfig(Section):
    """The noise levels of teacher and student (EDM, arXiv 2206.00364)."""

    sigma_min: Sigma = 0.002
    """Lowest noise level."""
    sigma_max: Sigma = 80.0
    """Highest noise level."""
    sigma_data: Sigma = 0.9
    """Standard deviation of the scaled latents."""
    rho: PositiveFloat = 7.0
    """Curvature of the sampling schedule."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min} must lie below sigma_max {self.sigma_max}")
        return self
