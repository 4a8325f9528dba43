"""What the published protocols need is checked before anything is generated."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lcm_distill.config import load_file
from lcm_distill.core.hashing import file_sha256
from lcm_distill.data.cache.cache import Cache
from lcm_distill.metrics.frechet import Gaussian
from lcm_distill.metrics.preprocessing import square_bicubic
from lcm_distill.metrics.protocol import MetricProtocol
from lcm_distill.metrics.reference_files import read_statistics, write_statistics
from lcm_distill.metrics.registry import PROTOCOLS
from lcm_distill.metrics.statistics import Statistics
from lcm_distill.pipeline.run_folder import RunFolder
from tests.command_line import lcm, settings
from tests.metrics.recorded import inception_weights
from tests.runs import borrow

PROTOCOL = "t2i-benchmark"


@pytest.fixture
def run(finished_run, tmp_path, monkeypatch) -> RunFolder:
    """A run with the finished run's student and no cache, a file of 3 captions, and a PyTorch hub without weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "captions.csv").write_text("image_id,text\n7,a red ring\n8,a blue ring\n9,a green ring\n")
    return borrow(finished_run, tmp_path / "run", "config.toml", "student.safetensors")


def evaluate(run: RunFolder, *options: str, **keys: object):
    chosen = {"images": 3, "prompts": f"'{run.root.parent}/captions.csv'", "models": "['student']",
              "student_steps": "[1]", "protocols": f"['{PROTOCOL}']", **keys}  # fmt: skip
    assignments = [f"evaluate.{key}={value}" for key, value in chosen.items()]
    return lcm("evaluate", "--run", run.root, *options, *settings(assignments))


def statistics(run: RunFolder, width: int) -> str:
    path = run.root.parent / f"of-{width}.npz"
    np.savez(path, mu=np.zeros(width), sigma=np.eye(width))
    return f"{{{PROTOCOL}='{path}'}}"


def refused(run: RunFolder, *options: str, **keys: object) -> str:
    """The one line that says why; nothing was generated."""
    result = evaluate(run, *options, **keys)
    assert result.exit_code == 2 and not run.evaluate.exists(), result.output
    return result.stderr.strip().splitlines()[-1]


def test_no_reference_named(run):
    told = refused(run)
    assert f"evaluate.reference.{PROTOCOL} is missing: set it to an .npz" in told
    assert "`lcm evaluate --images-only` generates images without measuring them" in told


def test_a_reference_that_is_not_there(run):
    told = refused(run, reference=f"{{{PROTOCOL}='nowhere.npz'}}")
    assert "nowhere.npz is missing: put it there" in told and "--images-only" in told


def test_no_inception(run):
    told = refused(run, reference=statistics(run, 2048))
    assert "pt_inception-2015-12-05-6726825d.pth" in told and "torch/hub/checkpoints" in told
    assert f"set evaluate.weights.{PROTOCOL}" in told and "--images-only" in told


def test_weights_that_are_not_the_published_ones(run):
    (run.root.parent / "own.pth").write_bytes(b"weights")
    told = refused(run, reference=statistics(run, 2048), weights=f"{{{PROTOCOL}='{run.root.parent}/own.pth'}}")
    assert "own.pth is not pt_inception-2015-12-05-6726825d.pth as published" in told


def test_too_few_captions(run):
    told = refused(run, images=4)
    assert "captions.csv has 3 captions and evaluate.images is 4: set evaluate.images=3" in told


def test_too_few_images_for_the_rank(run, monkeypatch):
    from lcm_distill.evaluation.feature_extractors import ExtractorInfo

    known = ExtractorInfo(PROTOCOL, "inception", "0" * 64, 2048)
    monkeypatch.setattr("lcm_distill.evaluation.requirements.find_extractor", lambda settings, protocol: known)
    told = refused(run, reference=statistics(run, 2048))
    assert f"evaluate.images = 3 is too few for {PROTOCOL}, whose features have 2,048 dimensions: set 2,049" in told


def test_statistics_of_another_width(run, monkeypatch):
    told = refused(run, protocols="['shapes']", reference=statistics(run, 100).replace(PROTOCOL, "shapes"))
    assert "of-100.npz" in told and "128" in told


def test_captions_that_the_stand_in_cannot_see(run):
    (run.root.parent / "captions.csv").write_text("image_id,text\n7,a ring\n8,a red house\n9,a green ring\n")
    told = refused(run, protocols="['shapes']", reference=statistics(run, 128).replace(PROTOCOL, "shapes"))
    assert "shapes cannot measure caption 'a red house', which names no shape of `shapes`: choose other" in told
    assert (
        """captions by evaluate.prompts, or another protocol, such as --set 'evaluate.protocols=["clip-vit-b-32"]';"""
        in told
    )


def test_captions_are_looked_at_before_sizes_of_checkpoints(run, monkeypatch):
    """The latter import what takes seconds."""
    monkeypatch.setattr("lcm_distill.evaluation.requirements.build_network", lambda *_, **__: pytest.fail("built"))
    monkeypatch.setattr("lcm_distill.models.networks.build_network", lambda *_, **__: pytest.fail("built"))
    (run.root.parent / "captions.csv").write_text("image_id,text\n7,a ring\n8,a red house\n9,a green ring\n")
    told = refused(run, protocols="['shapes']", models="['teacher', 'student']")
    assert "shapes cannot measure caption 'a red house'" in told


def test_protocols_that_store_images_differently(run):
    assert "t2i-benchmark needs .jpeg files and gigagan needs .png files" in refused(
        run, protocols="['t2i-benchmark', 'gigagan']"
    )


def test_a_dry_run_names_all_that_is_missing_and_writes_nothing(run):
    result = evaluate(run, "--dry-run", "--json", prompts="gone.csv", models="['teacher', 'student']")
    plan = json.loads(result.stdout)["evaluate"]
    missing = " ".join(plan["missing"])
    assert len(plan["missing"]) == 3 and "gone.csv is missing" in missing
    assert "evaluate.reference.t2i-benchmark is missing" in missing and "pt_inception" in missing
    assert plan["files"] == "JPEG, quality 90" and plan["images"] == 3 * 3
    assert plan["disk_bytes_about"] == 3 * 3 * 64 * 64 // 2 and not run.evaluate.exists()
    assert "gone.csv is missing" in evaluate(run, "--dry-run", prompts="gone.csv").stdout
    assert json.loads(evaluate(run, "--dry-run", "--json", "--images-only").stdout)["evaluate"]["missing"] == []


def test_images_alone_need_neither(run):
    assert evaluate(run, "--images-only").exit_code == 0
    assert len(list(run.evaluate.rglob("*.jpeg"))) == 3 and not list(run.evaluate.glob("*/t2i*"))


def test_features_of_a_folder_of_real_images_are_extracted_once(run, monkeypatch):
    """Its statistics are kept under the hash of its content: one more image makes others."""
    folder = run.root.parent / "real"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(noise.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    (run.root.parent / "captions.csv").write_text(
        "image_id,text\n"
        + "".join(f"{n},a large red {shape} in the centre on a navy background\n" for n, shape in
                  enumerate(("ring", "heart", "star")))
    )  # fmt: skip
    settings = {"protocols": "['shapes']", "reference": f"{{shapes='{folder}'}}"}
    first = json.loads(evaluate(run, "--json", **settings).stdout)
    kept = list((run.evaluate / "reference").iterdir())
    stamp = kept[0].stat().st_mtime_ns
    again = json.loads(evaluate(run, "--json", **settings).stdout)
    assert len(kept) == 1 and kept[0].stat().st_mtime_ns == stamp
    assert [row["value"] for row in again] == [row["value"] for row in first] and len(first) == 2
    assert first[0]["reference"].startswith("real:")
    Image.new("RGB", (64, 64)).save(folder / "more.png")
    more = json.loads(evaluate(run, "--json", **settings).stdout)
    assert len(list((run.evaluate / "reference").iterdir())) == 2
    assert {row["reference"] for row in more} > {first[0]["reference"]}
    (folder / "bad.png").write_bytes(b"no image")
    result = evaluate(run, **settings)
    assert result.exit_code == 3 and "bad.png cannot be read as an image" in result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protocols": "['fd-dino']"}, "evaluate.protocols: metric protocol 'fd-dino' is unknown: did you mean fd-din"),
        ({"weights": "{clip-vit-b32='x'}"}, "evaluate.weights.clip-vit-b32: metric protocol 'clip-vit-b32' is unknown"),
        ({"reference": "{fid='x.npz'}"}, "evaluate.reference.fid: metric protocol 'fid' is unknown: "),
    ],
)
def test_unknown_protocols_list_those_there_are(run, settings, message):
    told = refused(run, **settings)
    assert message in told and told.endswith("fd-dinov2, cmmd, clip-vit-b-32, clip-vit-g-14")


def test_nothing_to_generate(run):
    told = refused(run, models="['teacher']", teacher="[]")
    assert "evaluate.teacher = []" in told and "leave nothing to generate: name a teacher's solver and steps" in told


def test_one_image_is_too_few_for_a_covariance(run):
    told = refused(run, images=1, protocols="['shapes']", reference=statistics(run, 128).replace(PROTOCOL, "shapes"))
    assert "evaluate.images = 1 is too few for shapes: set 2 or more" in told


@pytest.fixture
def few_held_out(finished_run, tmp_path, monkeypatch) -> tuple[RunFolder, int]:
    """A run with a cache, the number of its held-out images, and `shapes` as strict as the published protocols."""
    monkeypatch.setitem(PROTOCOLS, "shapes", replace(PROTOCOLS["shapes"], allows_few=False))
    run = borrow(finished_run, tmp_path / "own", "config.toml", "student.safetensors", linked=("images", "cache"))
    return run, len(Cache.local(load_file(run.config), run).usable("valid"))


def test_too_few_real_images_are_refused_before_any_is_generated(few_held_out):
    """Of features of 128 dimensions, however many are generated; from a folder and from kept statistics as well."""
    run, held_out = few_held_out
    command = ["evaluate", "--run", run.root, "--models", "student", "--steps", 1, "--set", "evaluate.images=150"]
    told = lcm(*command)
    assert told.exit_code == 2 and not list(run.evaluate.glob("student-*")), told.output
    last = told.stderr.strip().splitlines()[-1]
    assert f"are {held_out} real images, too few for shapes, whose features have 128 dimensions" in last
    assert "set evaluate.reference.shapes to 129 or more" in last and "data.valid_fraction" in last
    folder, kept = run.root / "real", run.root / "real.npz"
    folder.mkdir()
    Image.new("RGB", (64, 64)).save(folder / "one.png")
    write_statistics(kept, Statistics.of(torch.randn(99, 128), range(99), 9))
    for path, number in ((folder, 1), (kept, 99)):
        told = lcm(*command, "--set", f"evaluate.reference={{shapes='{path}'}}")
        assert told.exit_code == 2 and f"in {path} are {number} real images" in told.stderr, told.output


def test_few_real_images_and_captions_that_repeat_are_said(few_held_out, monkeypatch):
    """Also of the row of real images, and of statistics that an earlier version kept without their number."""
    run, held_out = few_held_out
    (frechet, accuracy) = PROTOCOLS["shapes"].figures
    figures = (replace(frechet, enough_images=held_out + 1), accuracy)
    monkeypatch.setitem(PROTOCOLS, "shapes", replace(PROTOCOLS["shapes"], figures=figures))
    monkeypatch.setattr(MetricProtocol, "minimum_images", lambda protocol, width: 2)
    monkeypatch.setattr("lcm_distill.metrics.protocol.require_full_rank", lambda moments: None)
    options = settings(["evaluate.images=30", "evaluate.models=['student']", "evaluate.student_steps=[1]"])
    images = min(30, 72 - held_out)
    for _ in range(2):
        result = lcm("evaluate", "--run", run.root, *options, "--json")
        assert result.exit_code == 0, result.output
        assert f"repeated captions {30 - held_out}" in result.stderr
        shown = json.loads(lcm("status", "--run", run.root, "--json").stdout)["evaluate"]
        assert shown["repeated_captions"] == 30 - held_out
        rows = {(row["model"], row["metric"]): row for row in json.loads(result.stdout)}
        few, repeat = f"few real images ({held_out}), {held_out + 1} are usual", f"{held_out} held-out captions repeat"
        assert rows["student", "frechet_distance"]["warning"] == f"{few}; {repeat}"
        assert rows["student", "caption_accuracy"]["warning"] == repeat
        assert (
            rows["real", "frechet_distance"]["warning"] == few and rows["real", "frechet_distance"]["images"] == images
        )
        for path in (run.evaluate / "reference").iterdir():  # as an earlier version wrote it
            with np.load(path) as stored:
                identity, width = str(stored["identity"]), len(stored["mu"])
            before = read_statistics(path, width, identity)
            alone = Gaussian(before.moments.mean(), before.moments.covariance())
            write_statistics(path, Statistics(alone, before.sample), identity)


@pytest.mark.slow
def test_a_figure_is_that_of_the_files_that_were_written(run, monkeypatch):
    """Inception with random weights, seeded by their names, in a file that is taken for the published one."""
    from lcm_distill.metrics import inception_extractor
    from lcm_distill.metrics.frechet import Moments, frechet_distance

    weights = run.root.parent / "weights.pth"
    torch.save(inception_weights(), weights)
    published = replace(inception_extractor.INCEPTION_2015, sha256=file_sha256(weights))
    monkeypatch.setattr(inception_extractor, "INCEPTION_2015", published)
    monkeypatch.setitem(PROTOCOLS, PROTOCOL, replace(PROTOCOLS[PROTOCOL], allows_few=True))
    reference = statistics(run, 2048)
    result = evaluate(run, "--json", reference=reference, weights=f"{{{PROTOCOL}='{weights}'}}")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    files = sorted(run.evaluate.rglob("*.jpeg"))
    assert [path.name for path in files] == ["7.jpeg", "8.jpeg", "9.jpeg"]
    extractor = inception_extractor.InceptionExtractor(weights, torch.device("cpu"), 127.5)
    features = extractor(torch.stack([square_bicubic(Image.open(path), 299) for path in files]))
    path = run.root.parent / "of-2048.npz"
    wanted = frechet_distance(Moments.of(features), read_statistics(path, 2048).moments)
    assert row["metric"] == "fid" and row["value"] == pytest.approx(wanted, rel=1e-6)
    assert (row["protocol"], row["extractor"], row["images"]) == (PROTOCOL, "inception-2015-12-05", 3)
    assert row["extractor_sha256"] == file_sha256(weights) and row["prompts"].startswith("captions.csv:")
    assert row["reference"] == f"of-2048.npz:{file_sha256(path)[:12]}"
    table = evaluate(run, reference=reference, weights=f"{{{PROTOCOL}='{weights}'}}").stdout
    assert "FID" in table and "(t2i-benchmark)" in table
