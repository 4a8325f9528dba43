"""Images as files: named, stored and shared out as asked for, and the same wherever they are generated."""

import multiprocessing
import os
import pickle
import random
import shutil
import time
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import pytest
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from lcm_distill.api import TextToImage
from lcm_distill.config import Config, load_preset
from lcm_distill.core.errors import UserError
from lcm_distill.core.hashing import file_sha256
from lcm_distill.diffusion.few_step_samplers import Consistency
from lcm_distill.evaluation.generation import batch_generator
from lcm_distill.evaluation.image_sets import IMAGE_COLUMNS, ImageSet
from lcm_distill.evaluation.prompts import find_prompts
from lcm_distill.evaluation.samplings import samplings
from lcm_distill.pipeline.executors.processes import Processes
from lcm_distill.pipeline.executors.ranks import Ranks
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import LocalStorage
from lcm_distill.shapes.scenes import COLOURS, SHAPES
from lcm_distill.stages.evaluate import evaluate
from tests.conftest import SMALL

IDS = range(3, 45)


@pytest.fixture(scope="module")
def captions(tmp_path_factory) -> Path:
    """42 captions in text2image-benchmark's form; ids 3 to 44 in falling order."""
    path = tmp_path_factory.mktemp("captions") / "captions.csv"
    words = list(product(COLOURS, SHAPES))
    lines = [
        f"{number},a large {colour} {shape} in the centre on a navy background"
        for number, (colour, shape) in zip(reversed(IDS), words, strict=True)
    ]
    path.write_text("\n".join(["image_id,text", *lines]) + "\n")
    return path


@pytest.fixture
def new_run(finished_run, tmp_path):
    """Makes run folders with the finished run's student and nothing else."""

    def make(name: str) -> RunFolder:
        (tmp_path / name).mkdir()
        shutil.copy(finished_run.student, tmp_path / name)
        return RunFolder(tmp_path / name)

    return make


def settings(captions: Path, *assignments: str) -> Config:
    own = [f"evaluate.prompts='{captions}'", "evaluate.models=['student']", "evaluate.student_steps=[1]",
           "evaluate.images=42", "evaluate.protocols=[]"]  # fmt: skip
    return load_preset("shapes", [*SMALL, *own, *assignments])


def images(run: RunFolder) -> dict[str, bytes]:
    """Content of every image by the name of its file, which says whose it is."""
    files = [path for path in run.evaluate.rglob("*") if path.suffix in (".png", ".jpeg")]
    assert len({path.name for path in files}) == len(files) > 0
    return {path.name: path.read_bytes() for path in files}


def pixels(run: RunFolder) -> np.ndarray:
    """All images, in order of image id."""
    files = sorted(run.evaluate.rglob("*.png"), key=lambda path: int(path.stem))
    return np.stack([np.asarray(Image.open(path)) for path in files]).astype(int)


def test_files_are_named_by_image_id_and_stored_as_the_protocol_wants(new_run, captions):
    run = new_run("run")
    list(evaluate(settings(captions, "evaluate.protocols=['t2i-benchmark']"), run, images_only=True))
    assert set(images(run)) == {f"{number}.jpeg" for number in IDS}
    found = duckdb.sql(f"FROM '{run.evaluate}/*/manifest/*.parquet' ORDER BY task, image_id DESC")
    assert found is not None
    rows = found.to_arrow_table()
    assert rows["image_id"].to_pylist() == list(reversed(IDS))  # in the order of the file
    (folder,) = run.evaluate.iterdir()
    for row in rows.to_pylist():
        path = folder / row["file"]
        assert path.stem == str(row["image_id"]) and file_sha256(path) == row["file_sha256"]
    Image.new("RGB", (8, 8)).save(folder / "other.jpeg", quality=90)
    with Image.open(path) as image, Image.open(folder / "other.jpeg") as other:
        assert isinstance(image, JpegImageFile) and isinstance(other, JpegImageFile)
        assert image.format == "JPEG" and image.size == (64, 64)
        assert image.quantization == other.quantization
    assert duckdb.execute(f"SELECT count(*) FROM '{run.metrics}'").fetchall() == [(0,)] and run.grid.is_file()


def test_images_depend_on_seed_and_image_id_alone(new_run, captions):
    """Another batch size, another shard size, and the file of captions the other way round."""
    one, other, seeded = new_run("one"), new_run("other"), new_run("seeded")
    header, *lines = captions.read_text().splitlines()
    turned = captions.with_name("turned.csv")
    turned.write_text("\n".join([header, *reversed(lines)]))
    list(evaluate(settings(captions), one))
    list(evaluate(settings(turned, "evaluate.batch_size=3", "evaluate.shard_images=11"), other))
    assert np.abs(pixels(one) - pixels(other)).max() <= 1
    list(evaluate(settings(captions, "evaluate.seed=1"), seeded))
    assert np.abs(pixels(one) - pixels(seeded)).max() > 50


def test_batches_that_do_not_fit_the_memory_are_halved(new_run, captions, monkeypatch):
    whole, halved, sizes, real = new_run("whole"), new_run("halved"), [], TextToImage.generate

    def with_room_for_three(model: TextToImage, prompts: list[str], *arguments, **options):
        sizes.append(len(prompts))
        if len(prompts) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, prompts, *arguments, **options)

    list(evaluate(settings(captions), whole))
    monkeypatch.setattr(TextToImage, "generate", with_room_for_three)
    with pytest.warns(UserWarning, match="a batch of 4 does not fit the GPU's memory: 2 from now on"):
        list(evaluate(settings(captions), halved))
    assert sizes == [4] + 21 * [2] and np.abs(pixels(whole) - pixels(halved)).max() <= 1


def test_memory_that_is_too_small_for_one_image_names_the_remedy():
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    generate = batch_generator(SimpleNamespace(generate=full), Consistency((80.0,)), 2.0, 0, batch_size=1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"too small to generate one image: set evaluate\.dtype = bfloat16, or free it"):
        generate(["a red ring"], [0])


def test_images_of_another_precision_lie_in_another_folder(new_run, captions):
    run, prompts = new_run("run"), find_prompts(settings(captions), new_run("other"))
    image_sets = {
        dtype: ImageSet(config, run, samplings(config)[0], prompts)
        for dtype in ("auto", "float32", "bfloat16")
        for config in [settings(captions, "device=cpu", f"evaluate.dtype={dtype}")]
    }
    assert image_sets["auto"].fingerprint == image_sets["float32"].fingerprint != image_sets["bfloat16"].fingerprint
    assert image_sets["auto"].folder != image_sets["bfloat16"].folder
    for dtype, image_set in image_sets.items():
        expected = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        assert pickle.loads(pickle.dumps(image_set))._model("cpu").dtype == expected


def test_workers_generate_in_the_precision_that_was_planned(new_run, captions, monkeypatch):
    """A plan that was made where there is a GPU is carried out in bfloat16 wherever a worker runs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = settings(captions)
    image_set = ImageSet(config, new_run("run"), samplings(config)[0], find_prompts(config, new_run("other")))
    monkeypatch.undo()
    assert image_set._model("cpu").dtype == torch.bfloat16


def test_the_same_noise_for_all_generates_equal_captions_equally(new_run, tmp_path):
    captions = tmp_path / "twice.txt"
    captions.write_text("a small red ring on the left on a mint background\n" * 2)
    own = ["evaluate.images=2", "evaluate.student_steps=[2]"]
    shared, apart = new_run("shared"), new_run("apart")
    list(evaluate(settings(captions, *own, "evaluate.same_noise=true"), shared))
    list(evaluate(settings(captions, *own), apart))
    first, second = pixels(shared)
    assert np.array_equal(first, second)
    first_apart, second_apart = pixels(apart)
    assert np.abs(first_apart - first).max() <= 1 < np.abs(first_apart - second_apart).max()


def test_ranks_share_generation_and_measuring(new_run, finished_run, captions):
    """The second rank ends its share before the first begins; the first one writes the results."""
    config = settings(captions, "evaluate.protocols=['shapes']", "evaluate.reference={}", "evaluate.prompts=held-out")
    one, many = (RunFolder(new_run(name).root, finished_run) for name in ("one", "many"))
    list(evaluate(config, one))
    reports = list(evaluate(config, many, Ranks(1, 2, 0)))
    assert 0 < len(images(many)) < 42 and not many.metrics.exists()
    assert {report.label for report in reports} == {"generate", "measure"}
    list(evaluate(config, many, Ranks(0, 2, 0)))
    assert images(many) == images(one)
    values = [duckdb.execute(f"SELECT value FROM '{run.metrics}' ORDER BY ALL").fetchall() for run in (one, many)]
    assert values[0] == values[1] and len(values[0]) == 3


def test_work_can_be_sent_to_other_processes(new_run, captions):
    config = settings(captions)
    image_set = ImageSet(config, new_run("run"), samplings(config)[0], find_prompts(config, new_run("other")))
    again = pickle.loads(pickle.dumps(image_set.opened)).__self__
    assert (again.fingerprint, again.prompts, again.tasks()) == (
        image_set.fingerprint,
        image_set.prompts,
        image_set.tasks(),
    )


@pytest.mark.slow
def test_processes_generate_the_same(new_run, captions):
    one, many = new_run("one"), new_run("many")
    list(evaluate(settings(captions), one))
    list(evaluate(settings(captions), many, Processes(2)))
    assert np.abs(pixels(one) - pixels(many)).max() <= 1  # processes compute in other numbers of threads


def stamps(run: RunFolder) -> dict[str, tuple[int, int]]:
    """Inode and time of every committed image's file."""
    found = {}
    for folder in run.evaluate.glob("student-*"):
        for entry in Manifest(LocalStorage(folder), IMAGE_COLUMNS).entries().values():
            for file in entry.files:
                stat = (folder / file.name).stat()
                found[f"{folder.name}/{file.name}"] = (stat.st_ino, stat.st_mtime_ns)
    return found


def live(config: Config, run: RunFolder) -> None:
    """One life: a process of its own, like the command's."""
    os.setpgrp()
    run.open(config)
    for _ in evaluate(config, run):
        pass


@pytest.mark.slow
def test_killed_twenty_times_images_are_the_same_and_none_is_made_twice(new_run, captions, monkeypatch):
    """kill -9 at random moments between the opening of the run and a few commits later.

    Models are loaded before, once for all lives, which are forks.
    """
    config = settings(captions, "evaluate.student_steps=[1, 2, 4]", "evaluate.shard_images=2", "evaluate.batch_size=2")
    unbroken, broken = new_run("unbroken"), new_run("broken")
    prompts = find_prompts(config, unbroken)
    models = {sampling: ImageSet(config, unbroken, sampling, prompts)._model("cpu") for sampling in samplings(config)}
    monkeypatch.setattr(ImageSet, "_model", lambda image_set, device: models[image_set.sampling])
    list(evaluate(config, unbroken))
    chance, committed = random.Random(0), {}
    for _ in range(20):
        life = multiprocessing.get_context("fork").Process(target=live, args=(config, broken))
        life.start()
        wanted = len(committed) + 2 * chance.randint(0, 3)
        while life.is_alive() and sum(1 for _ in broken.evaluate.glob("*/manifest/[!.]*")) * 2 < wanted:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        life.kill()
        life.join()
        now = stamps(broken)
        assert now.items() >= committed.items()
        committed = now
    assert 10 < len(committed) < 3 * 42
    list(evaluate(config, broken))
    assert stamps(broken).items() >= committed.items() and len(stamps(broken)) == 3 * 42
    found = [
        {path.relative_to(run.evaluate): path.read_bytes() for path in run.evaluate.rglob("*.png")}
        for run in (unbroken, broken)
    ]
    assert found[0] == found[1]
