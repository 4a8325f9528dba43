"""One cache for many runs: used in place, read only, and held by what it contains."""

import json
import shutil
from pathlib import Path

import pytest

from lcm_distill.config import load_file
from lcm_distill.core.errors import DataError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.manifest_rows import SAMPLE_COLUMNS
from lcm_distill.pipeline.run_folder import RunFolder
from tests.command_line import lcm, settings

SHORT = settings(["distill.steps=2", "evaluate.images=4", "evaluate.teacher=[]", "evaluate.student_steps=[1]"])


@pytest.fixture
def first(finished_run, tmp_path) -> Path:
    """A run that has a cache, images and nothing else."""
    root = tmp_path / "first"
    root.mkdir()
    for name in ("cache", "images"):
        shutil.copytree(finished_run.root / name, root / name)
    shutil.copy(finished_run.config, root)
    return root


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def distilled(first: Path, *more: str) -> Path:
    second = first.parent / "second"
    assert lcm("distill", "--cache", first, "--run", second, *SHORT, *more).exit_code == 0
    return second


def test_a_second_student_encodes_nothing_and_equals_that_of_its_own_cache(first):
    before = files(first)
    second = first.parent / "second"
    result = lcm("run", "--cache", first, "--run", second, *SHORT, "--json")
    assert result.exit_code == 0, result.stderr
    after = files(first)
    (note,) = after.keys() - before.keys()  # that the cache is in use
    assert json.loads(after.pop(note)) == {"run": str(second)} and note.startswith("readers/")
    assert after == before
    assert not (second / "cache").exists() and not (second / "images").exists()
    assert load_file(second / "config.toml").cache.run == first
    assert {row["model"] for row in json.loads(result.stdout)} == {"student", "real"}  # measured by its images too

    own = first.parent / "own"
    shutil.copytree(first, own)
    assert lcm("distill", "--run", own, *SHORT).exit_code == 0
    assert (second / "student.safetensors").read_bytes() == (own / "student.safetensors").read_bytes()


def test_a_preset_gives_what_the_cache_does_not_decide(first):
    second = distilled(first, "--preset", "original")
    made, taken = load_file(second / "config.toml"), load_file(first / "config.toml")
    assert made.distill.objective == "discrete" and taken.distill.objective == "tuning"
    assert made.data == taken.data and made.cache.shard_rows == 16


def test_pretraining_uses_it_too(first):
    third = first.parent / "third"
    short = settings(["pretrain.steps=2", "pretrain.batch_size=4"])
    assert lcm("pretrain", "--cache", first, "--run", third, *short).exit_code == 0
    assert (third / "teacher.safetensors").is_file() and not (third / "cache").exists()
    assert json.loads((third / "cache.json").read_text())["run"] == str(first)


def test_looking_at_the_run_says_where_the_cache_is(first):
    second = distilled(first)
    told = json.loads(lcm("status", "--run", second, "--json").stdout)["precompute"]
    assert told["cache"] == str(first / "cache") and told["done"] == told["tasks"] > 0
    found = json.loads(lcm("verify", "--run", second, "--json").stdout)
    assert found["cache"] == str(first / "cache") and found["sound"] and found["rows"] > 0
    assert json.loads(lcm("inspect", "SELECT count(*) AS n FROM samples", "--run", second, "--json").stdout) == [
        {"n": 72}
    ]
    plan = json.loads(lcm("precompute", "--run", second, "--dry-run", "--json").stdout)["precompute"]
    assert plan["cache"] == str(first / "cache") and plan["missing"] == []


@pytest.mark.parametrize(
    "command", ["verify --repair", "cache compact", "cache pull", "precompute --retry-quarantined"]
)
def test_what_would_change_the_cache_names_its_owner(first, command):
    second = distilled(first)
    before = files(first)
    result = lcm(*command.split(), "--run", second)
    assert result.exit_code == 2 and f"run `lcm {command} --run {first}`" in result.stderr
    assert result.stderr.count("\n") == 1 and files(first) == before


@pytest.mark.parametrize("key, value", [("data.min_size", 32), ("cache.shard_rows", 8), ("seed", 5)])
def test_other_settings_are_refused_by_name(first, key, value):
    result = lcm("distill", "--cache", first, "--run", first.parent / "second", *settings([f"{key}={value}"]))
    assert result.exit_code == 2 and f"was made with {key} = " in result.stderr
    assert f"not {value}" in result.stderr and not (first.parent / "second").exists()


@pytest.mark.parametrize("path", ["{}", "first", "../{}/first"])
def test_the_key_begins_a_run_as_the_option_does(first, path, monkeypatch):
    monkeypatch.chdir(first.parent)
    path = path.format(first if path == "{}" else first.parent.name)
    for name, words in (("by-key", settings([f"cache.run={path}"])), ("by-option", ["--cache", path])):
        assert lcm("distill", "--run", name, *words, *SHORT).exit_code == 0
    made, other = load_file(Path("by-key/config.toml")), load_file(Path("by-option/config.toml"))
    assert made == other and made.cache.run is not None and made.cache.run.resolve() == first
    assert Path("by-key/student.safetensors").read_bytes() == Path("by-option/student.safetensors").read_bytes()


def test_the_key_is_refused_as_the_option_is(first):
    second = ["--run", first.parent / "second"]
    for words, said in (
        ([f"cache.run='{first}'", "data.min_size=32"], "was made with data.min_size = "),
        ([f"cache={{run='{first}', shard_rows=8}}"], "was made with cache.shard_rows = 16, not 8"),
        ([f"cache.run='{first.parent / 'nosuch'}'"], "nosuch' does not exist: give the cache's run"),
    ):
        for command in ("distill", "precompute"):
            result = lcm(command, *second, *settings(words))
            assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1, result.stderr
            assert not (first.parent / "second").exists()
    result = lcm("distill", "--cache", first, *second, *settings(["cache.run='elsewhere'"]))
    assert result.exit_code == 2 and "are two runs: leave one of them out" in result.stderr


def test_nothing_says_to_delete_the_cache_of_another_run(first, monkeypatch):
    second, kept = distilled(first), files(first)
    for command in ("precompute", "distill", "evaluate", "schedule", "run"):
        for more in ([], ["--dry-run"]):
            result = lcm(command, "--run", second, *settings(["data.min_size=32"]), *more)
            said = result.stderr
            assert f"delete {first}" not in said and "or delete it" not in said and files(first) == kept
    monkeypatch.setattr("lcm_distill.config.run.SCHEMA_VERSION", 0)  # what an earlier version made
    for command in ("precompute", "distill"):
        result = lcm(command, "--run", second)
        assert result.exit_code == 2 and f"begin another --run with --cache {first}" in result.stderr, result.output
        assert f"delete {first}" not in result.stderr and "or delete it" not in result.stderr


def test_a_cache_that_was_replaced_is_refused_until_one_begins_again(first):
    second = distilled(first)
    cache = Cache.local(load_file(first / "config.toml"), RunFolder(first))
    last = cache.tasks()[-1]
    (entry,) = cache.manifest.entries([last.name]).values()
    kept = files(second)
    shutil.copytree(first, first.parent / "kept")
    columns = [field.name for field in SAMPLE_COLUMNS]
    rows = cache.manifest.read([last], ["status", *columns]).to_pylist()
    cache.manifest.drop([last.name])
    cache.manifest.commit(last, [{**row, "status": "quarantined", "error": "broken"} for row in rows], entry.files[0])
    for command in (["distill"], ["run"], ["evaluate"], ["precompute"]):
        result = lcm(*command, "--run", second, *settings(["evaluate.images=4"]))
        assert result.exit_code == 2 and "is not the cache that" in result.stderr, result.stderr
        assert result.stderr.count("\n") == 1
    assert {name: content for name, content in files(second).items() if not name.startswith("logs/")} == {
        name: content for name, content in kept.items() if not name.startswith("logs/")
    }

    moved = first.parent / "kept"  # the same cache elsewhere is the same cache
    assert lcm("distill", "--cache", moved, "--run", second).exit_code == 0
    named = result.stderr.partition("or delete ")[2].partition(" to begin")[0].split(" and ")
    assert named == [str(second / "cache.json"), str(second / "distill")]
    shutil.rmtree(second / "distill")
    (second / "cache.json").unlink()
    assert lcm("distill", "--cache", first, "--run", second).exit_code == 0


def test_an_incomplete_cache_names_the_command_for_its_owner(first):
    shutil.rmtree(first / "cache")
    result = lcm("distill", "--cache", first, "--run", first.parent / "second")
    assert result.exit_code == 2 and f"run `lcm precompute --run {first}` first" in result.stderr
    assert lcm("precompute", "--run", first).exit_code == 0
    distilled(first)


def test_a_run_with_a_cache_of_its_own_keeps_it(first, tmp_path):
    shutil.copytree(first, tmp_path / "own")
    for named in (first, tmp_path / "own"):
        result = lcm("distill", "--cache", named, "--run", tmp_path / "own")
        assert result.exit_code == 2 and "was made here" in result.stderr


def test_the_cache_of_a_run_that_borrows_is_that_of_its_owner(first):
    second, third = distilled(first), first.parent / "third"
    plan = json.loads(lcm("distill", "--cache", second, "--run", third, "--dry-run", "--json").stdout)["distill"]
    assert plan["cache"] == str(first / "cache") and plan["missing"] == []


def test_a_row_that_changed_under_a_training_is_refused(first):
    second = first.parent / "second"
    config = load_file(first / "config.toml").sharing(load_file(first / "config.toml"), first)
    batches = Cache.open(config, RunFolder(second)).batches(8, 0)
    for shard in (first / "cache/latents_64/c").rglob("*"):
        if shard.is_file():
            shard.write_bytes(bytes(len(shard.read_bytes())))
    with pytest.raises(DataError, match=f"lcm verify --repair --run {first}"):
        batches[0]


def test_a_cache_that_is_no_run_is_named(tmp_path):
    nowhere = tmp_path / "nosuch"
    result = lcm("distill", "--cache", nowhere, "--run", tmp_path / "own")
    assert result.exit_code == 2 and f"--cache {nowhere} does not exist: give the cache's run" in result.stderr
    assert not (tmp_path / "own").exists()


def test_the_cache_is_found_from_any_folder_and_named_where_it_has_moved(first, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert lcm("distill", "--cache", "first", "--run", "second", *SHORT).exit_code == 0
    assert load_file(tmp_path / "second/config.toml").cache.run == first
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert lcm("verify", "--run", "../second").exit_code == 0
    first.rename(tmp_path / "moved")
    said = f"{first / 'config.toml'} is missing: this run reads the cache of that one: put it back, or set cache.run to"
    for command in ("verify", "precompute", "distill", "evaluate --set evaluate.images=4"):
        refused = lcm(*command.split(), "--run", "../second")
        assert refused.exit_code == 2 and said in refused.stderr and refused.stderr.count("\n") == 1
    told = json.loads(lcm("status", "--run", "../second", "--json").stdout)["precompute"]["data"]
    assert said in told["missing"]
    written = (tmp_path / "second/config.toml").read_text()
    (tmp_path / "second/config.toml").write_text(written.replace(str(first), str(tmp_path / "moved")))
    assert lcm("verify", "--run", "../second").exit_code == 0
    (tmp_path / "moved").rename(tmp_path / "again")
    again = settings(["cache.run='../again'"])
    for words in (["distill", *again], ["verify"], ["precompute"]):
        assert lcm(*words, "--run", "../second").exit_code == 0
    assert load_file(tmp_path / "second/config.toml").cache.run == elsewhere / "../again"
