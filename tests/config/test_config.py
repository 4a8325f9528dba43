"""Configuration is validated once, and errors name key, value and remedy."""

import json
import re
import tomllib
from importlib import resources
from operator import attrgetter

import pytest

from lcm_distill.config import Config, load_file, load_preset, parse, presets
from lcm_distill.config.describe import docstrings
from lcm_distill.config.section import Section
from lcm_distill.core.errors import UserError

PRESETS = resources.files("lcm_distill.config") / "presets"


@pytest.mark.parametrize("name", presets())
def test_presets_load_and_survive_a_round_trip(name):
    config = load_preset(name)
    assert parse(config.to_toml(), "copy") == config


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("data.imges=5", "unknown key data.imges: did you mean images?"),
        ("nonsense.key=1", "unknown key nonsense"),
        ("data.images=-3", "data.images = -3"),
        ("distill.guidance_range=[3, 1]", "guidance_range [3.0, 1.0] must hold"),
        ("evaluate.student_sigmas={1=[80.0, 2.0], 2=[80.0, 2.0], 4=[80.0, 4.0, 1.5, 0.6]}", "must be 1 falling"),
        ("distill.objective=ect", "distill.objective = 'ect': choose from discrete, tuning, scm, phased"),
        (
            "distill.objective=phased",
            "samples in 4 steps, one more than distill.phased.edges has: set evaluate.student_",
        ),
        ("distill.phased.edges=[1.0, 2.0]", "distill.phased.edges = [1.0, 2.0] must fall"),
        ("distill.phased.edges=[90.0]", "lie between diffusion.sigma_max 80.0 and diffusion.sigma_min 0.002"),
        ("distill.phased.gap_ratio=1e-300", "distill.phased.gap_ratio = 1e-300"),
        ("distill.tuning.gap_ratio=0.00002", "distill.tuning.gap_ratio = 2e-05"),
        ("distill.tuning.halvings=15", "halvings = 15 of the interval of gap_ratio = 0.5 leave less than 0.0001"),
        ("distill.tuning.widening=1e9", "distill.tuning.widening = 1000000000.0"),
        ("distill.matching.sigmas=[]", "distill.matching.sigmas = []"),
        ("distill.discrete.skip=40", "distill.discrete: skip = 40 leaves no pair on a grid of points = 40: lower skip"),
        ("distill.discrete.points=1", "distill.discrete.points = 1"),
        ("distill.tuning.gap_ratoi=0.5", "unknown key distill.tuning.gap_ratoi: did you mean gap_ratio?"),
        ("distill.gap_ratio=0.5", "unknown key distill.gap_ratio"),
        ("distill.target_decay=1.0", "distill.target_decay = 1.0"),
        ("distill.scm.warmup=2", "distill.scm.warmup = 2"),
        ("distill.seed=-1", "distill.seed = -1"),
        ("pretrain.caches={a=0.5, b=0.6}", "shares must sum to 1 or less"),
        ("pretrain.mask_ratio=1.0", "pretrain.mask_ratio = 1.0"),
        ("distill.lora.rank=-1", "distill.lora.rank = -1"),
        ("evaluate.guidance=[]", "evaluate.guidance = []"),
        ("evaluate.protocols=['shapes', 'shapes']", "protocols = ['shapes', 'shapes'] names one twice"),
        ("evaluate.seed=-1", "evaluate.seed = -1"),
        ("evaluate.guidance=[2, 0.5]", "evaluate.guidance.1 = 0.5"),
        ("evaluate.guidance=inf", "evaluate.guidance.0 = inf"),
        ("evaluate.dtype=float16", "evaluate.dtype = 'float16': must be 'auto', 'float32' or 'bfloat16'"),
        ("distill.guidance_embedder=one", "distill.guidance_embedder = 'one'"),
        ("diffusion.sigma_min=100", "sigma_min 100.0 must lie below sigma_max 80.0"),
        ("seed=-1", "seed = -1"),
        ("encoders.dtype=float8", "encoders.dtype = 'float8'"),
        ("justakey", "write section.key=value"),
        ("data.images.more=1", "data.images is one value and no table: write data.images=VALUE"),
    ],
)
def test_errors_are_one_line_with_key_and_value(assignment, message):
    with pytest.raises(UserError) as caught:
        load_preset("shapes", [assignment])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_drawing_has_the_seed_of_the_run_unless_it_is_given_its_own():
    assert load_preset("shapes", ["seed=7"]).generation_seed == 7
    assert load_preset("shapes", ["seed=7", "evaluate.seed=0"]).generation_seed == 0


def test_training_has_the_seed_of_the_run_unless_it_is_given_its_own():
    assert load_preset("shapes", ["seed=7"]).distill_seed == 7
    assert load_preset("shapes", ["seed=7", "distill.seed=0"]).distill_seed == 0


def test_unknown_preset_and_missing_file():
    with pytest.raises(UserError, match="unknown preset 'shape': choose one of microdit_xl_512, original, pretrain_"):
        load_preset("shape")
    with pytest.raises(UserError, match=r"nowhere\.toml is missing"):
        from pathlib import Path

        load_file(Path("nowhere.toml"))
    with pytest.raises(UserError, match="is not TOML"):
        parse("a = = b", "file")


@pytest.mark.parametrize("value", ["{prompt=0.7", "{prompt: 0.7}", "[1, 2", '"open'])
def test_an_assignment_that_is_broken_toml_is_no_bare_word(value):
    with pytest.raises(UserError, match=r"^--set data.captions=.* is not TOML: .*: write a list as \[1, 2\]"):
        load_preset("shapes", [f"data.captions={value}"])


def test_one_guidance_scale_has_no_response():
    one = "distill.guidance_range=[2, 2]"
    load_preset("shapes", [one])
    with pytest.raises(
        UserError, match=r"guidance_range \[2.0, 2.0\] is one scale, to which there is no response: set"
    ):
        load_preset("shapes", [one, "distill.response.weight=1"])


def test_assignments_are_toml_or_bare_words():
    config = load_preset("shapes", ["seed=7", "device=cpu", "distill.betas=[0.9, 0.95]", "evaluate.guidance=1.5"])
    assert (config.seed, config.device, config.distill.betas) == (7, "cpu", (0.9, 0.95))
    assert config.evaluate.guidance == [1.5]


def test_fingerprint_changes_with_results_and_nothing_else():
    base = load_preset("shapes")

    def fingerprint(*assignments):
        return load_preset("shapes", assignments).fingerprint("data", "encoders", "distill")

    assert fingerprint() == base.fingerprint("data", "encoders", "distill")
    assert fingerprint("encoders.batch_size=3", "data.root=/elsewhere", "device=cpu") == fingerprint()
    assert fingerprint("evaluate.images=5") == fingerprint()
    assert (
        len({fingerprint(), fingerprint("seed=1"), fingerprint("data.images=9"), fingerprint("distill.huber=0.1")}) == 4
    )


@pytest.mark.parametrize("assignment", ["encoders.dtype=bfloat16", "encoders.tiling=true", "encoders.weights=random"])
def test_how_encoders_compute_is_part_of_the_identity(assignment):
    fingerprints = [load_preset("shapes", chosen).fingerprint("encoders") for chosen in ([], [assignment])]
    assert len(set(fingerprints)) == 2


@pytest.mark.parametrize("objective", ["tuning", "discrete", "scm"])
def test_objectives_are_chosen_by_a_single_key(objective):
    for preset in ("shapes", "original"):
        assert load_preset(preset, [f"distill.objective={objective}"]).distill.objective == objective


def test_every_deviation_of_the_original_is_a_single_key():
    base, original = load_preset("shapes"), load_preset("original")
    sections = ["data", "encoders", "cache", "model", "diffusion", "distill"]

    def deviations(config):
        return {text.split(" = ")[0] for text in config.differences(base, sections)}

    keys = ("objective", "sigma_distribution", "tuning.gap_ratio", "tuning.halvings", "matching.shared_noise",
            "solver", "distance", "learning_rate", "warmup_steps", "guidance_range", "guidance_embedder",
            "publish", "matching.weight", "adversarial.weight")  # fmt: skip
    assert deviations(original) == {f"distill.{key}" for key in keys}
    for key in keys:
        set_back = load_preset("original", [f"distill.{key}={json.dumps(attrgetter(key)(base.distill))}"])
        assert deviations(set_back) == deviations(original) - {f"distill.{key}"}


def test_the_original_is_shapes_but_for_keys_with_a_comment():
    """A table with a comment stands for its keys; one that the head names is left out on purpose."""
    head, *tables = (PRESETS / "original.toml").read_text().split("\n[")
    commented = set(re.findall(r"no \[(\w+)\]", head))
    for table in tables:
        name, _, rest = table.partition("]")
        lines = [line.partition("  # ") for line in rest.splitlines()]
        commented |= {f"{name}.{line.partition('=')[0].strip()}".rstrip(".") for line, comment, _ in lines if comment}
    base, original = (leaves(load_preset(name).model_dump() | {"preset": ""}) for name in ("shapes", "original"))
    unequal = {path for path in {*base, *original} if base.get(path) != original.get(path)}
    differing = {".".join(map(str, path)) for path in unequal}
    unexplained = {key for key in differing if not any(f"{key}.".startswith(f"{own}.") for own in commented)}
    assert unexplained == set() and {"distill.objective", "evaluate.student_steps"} <= differing
    assert {key for key in commented if not any(f"{own}.".startswith(f"{key}.") for own in differing)} == set()


def leaves(values, path=()):
    """Values that are no table, by the path of their keys."""
    if not isinstance(values, dict):
        return {path: values}
    return {key: value for name, own in values.items() for key, value in leaves(own, (*path, name)).items()}


def test_every_key_is_documented():
    def walk(section):
        for name, field in section.model_fields.items():
            nested = field.annotation
            if isinstance(nested, type) and issubclass(nested, Section):
                yield from walk(nested)
            elif section is not Config:
                yield section, name, docstrings(section).get(name)

    undocumented = [(section.__name__, name) for section, name, text in walk(Config) if not text]
    assert undocumented == []


def test_the_mission_tunes_the_teacher_that_it_distils():
    config = load_preset("microdit_xl_512", ["pretrain.steps=500"])
    assert config.pretrain and config.pretrain.start == config.model.teacher


def test_presets_name_themselves():
    for name in presets():
        text = (PRESETS / f"{name}.toml").read_text()
        assert tomllib.loads(text)["preset"] == name


def test_published_stages_follow_one_another_on_one_cache():
    names = ["pretrain_xl_256_masked", "pretrain_xl_256", "pretrain_xl_512_masked", "pretrain_xl_512"]
    stages = [load_preset(name) for name in names]
    settings = [stage.pretrain for stage in stages if stage.pretrain is not None]
    assert [stage.resolution for stage in stages] == [256, 256, 512, 512]
    assert [stage.mask_ratio for stage in settings] == [0.75, 0, 0.75, 0]
    assert [stage.steps for stage in settings] == [250_000, 30_000, 50_000, 5_000]
    assert {(stage.batch_size, stage.caption_drop) for stage in settings} == {(2048, 0.1)}
    for earlier, stage in zip(names, settings[1:], strict=False):
        assert stage.start == f"runs/{earlier}/teacher.safetensors"
        assert stage.caches == {f"runs/{names[0]}": 1.0} and stage.own_share == 0
    assert settings[0].own_share == 1


def test_runs_that_say_they_do_not_compile_still_open():
    config = load_preset("shapes")
    older = config.to_toml().replace("[engine]\n", "[engine]\ncompile = false\n")
    assert older != config.to_toml() and parse(older, "older") == config
    with pytest.raises(UserError, match="the key compile was removed"):
        load_preset("shapes", ["engine.compile=true"])


def test_a_key_that_was_added_counts_in_fingerprints_where_it_is_not_the_default():
    """So students of before are known by their fingerprints still; differences name the key in either case."""
    plain = load_preset("shapes")
    for assignment in ("distill.fresh_noise=false", "distill.matching.shared_noise=false", "distill.response.weight=1"):
        key, changed = assignment.split("=")[0], load_preset("shapes", [assignment])
        assert changed.fingerprint("distill") != plain.fingerprint("distill")
        assert list(changed.deviations(plain, ["distill"])) == [key]
        assert next(iter(plain.deviations(changed, ["distill"]).values()))[0] is not None
    again = load_preset("shapes", ["distill.fresh_noise=true", "distill.response.weight=0"])
    assert again.fingerprint("distill") == plain.fingerprint("distill")


def test_keys_that_had_another_name_are_read_and_keep_their_fingerprint():
    config = load_preset("shapes", ["data.pictures=72", "distill.levels=uniform"])
    assert (config.data.images, config.distill.sigma_distribution) == (72, "uniform")
    assert config == load_preset("shapes", ["data.images=72", "distill.sigma_distribution=uniform"])
    since = [
        "distill.adversarial.weight=0",
        "distill.steps=150",
        "distill.solver=euler",
        "distill.tuning.gap_ratio=0.75",
        "distill.tuning.halvings=0",
        "distill.matching.shared_noise=false",
    ]
    before = load_preset("shapes", since)  # as it was before the change
    assert before.fingerprint("data", "model", "distill") == "a3c849bb7940e1e3"
    old = config.to_toml().replace("images = 72", "pictures = 72").replace("sigma_distribution", "levels")
    assert parse(old, "old") == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = " + b"[" * 100_000, "is nested too deeply"),
        (b"a." * 100_000 + b"b = 1", "is nested too deeply"),
        (b"", "preset is missing"),
        (b'preset = "\xe9"', "is not UTF-8 (byte 10): convert it"),
        (b"#" * 2_000_000, "it is larger than 1,000,000 bytes"),
        (b"seed = " + b"9" * 5000, "is not TOML"),
        (b"\0\1\2", "is not TOML"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_short_line(tmp_path, content, message):
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_file(path)
    line = str(caught.value)
    assert message in line and str(path) in line and "\n" not in line and len(line) < 1000


@pytest.mark.parametrize(
    "assignment",
    ["seed=" + "[" * 100_000, "a." * 100_000 + "b=1", "diffusion.sigma_max=inf", "diffusion.sigma_data=nan",
     "distill.guidance_range=[nan, nan]", "evaluate.guidance=[inf]", f"device=[{'1,' * 100_000}]"],
)  # fmt: skip
def test_assignments_without_end_are_one_short_line(assignment):
    with pytest.raises(UserError) as caught:
        load_preset("shapes", [assignment])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
