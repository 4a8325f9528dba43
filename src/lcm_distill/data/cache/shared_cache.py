"""A cache that another run made and several read: what must agree with it, and that it stays what a run began with."""

import json
import logging
from dataclasses import asdict
from pathlib import Path

from lcm_distill.config import CacheConfig, Config, NetworkConfig, load_file
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.core.hashing import digest
from lcm_distill.core.io_errors import require_reachable
from lcm_distill.core.json import parse_json
from lcm_distill.core.regular_files import read_regular
from lcm_distill.pipeline.atomic_writes import commit_bytes
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.run_folder import RunFolder

CONTENT, RUN = "content", "run"
ELSEWHERE = (
    "this run reads the cache of that one: put it back, or set cache.run to where it is now, with --set or in this "
    "run's config.toml"
)
"""What to do where the run that another one's `cache.run` names is gone."""

log = logging.getLogger(__name__)


def require_own(cache: CacheConfig, run: RunFolder, command: str) -> None:
    """Check that a run's cache is its own, which a command is to change.

    Args:
        command: without `lcm` and the run, such as `verify --repair`.

    Raises:
        UserError: it is another run's; the message has the command for that one.
    """
    if (owner := cache.run) is not None:
        raise UserError(f"{run.root} only reads the cache of {owner}: run `lcm {command} --run {owner}`")


def location_of(cache: CacheConfig, owner: RunFolder) -> str | None:
    """The object store that a cache comes from: a configuration's, or that of the run which it names in `cache.run`."""
    return (load_file(owner.config).cache if cache.run is not None and owner.exists else cache).location


def require_same_settings(config: Config, owner: RunFolder) -> None:
    """Check that a configuration describes the cache of another run.

    Raises:
        UserError: there is no such run, it has no cache of its own, or keys differ; the message names them.
    """
    other = load_file(owner.require(owner.config, ELSEWHERE))
    if other.cache.run is not None:
        raise UserError(f"cache.run = '{owner.root}': that run uses the cache of {other.cache.run}: name this one")
    differences = other.differences(config, ["seed", "data", "encoders", "cache"]) + other.other_data(config)
    if differences := differences + width_differences(config.model, other.model):
        raise UserError(
            f"the cache of {owner.root} was made with {'; '.join(differences)}: set the same here, or begin another "
            f"--run with --cache {owner.root}, which takes them from there"
        )


def width_differences(model: NetworkConfig, other: NetworkConfig) -> list[str]:
    """In the words of `Config.differences`: sizes that another run's cache has, and this configuration's network not.

    Args:
        other: network of the run whose cache it is.
    """
    keys = ("in_channels", "caption_channels")
    pairs = [(key, getattr(model, key), getattr(other, key)) for key in keys]
    return [f"model.{key} = {theirs}, not {own}" for key, own, theirs in pairs if own != theirs]


def require_held(run: RunFolder, owner: RunFolder, manifest: Manifest) -> None:
    """Check that the cache of another run is the one that a run's training began with; nothing before there is one.

    Raises:
        UserError: it is another by now.
        DataError: the record is damaged.
    """
    held = _read(run.held_cache)
    if held is None or held == content(manifest):
        return
    begun = map(str, run.begun)
    raise UserError(
        f"{owner.cache} is not the cache that {run.root} began with: it was extended or made anew; put it back, choose "
        f"another --run, or delete {' and '.join([str(run.held_cache), *begun])} to begin again with what it is now"
    )


def hold(run: RunFolder, owner: RunFolder, manifest: Manifest) -> None:
    """Record what the cache of another run is, which a run's training begins with, and there that it is in use."""
    if not run.held_cache.is_file():
        held = {"run": str(owner.root.resolve()), CONTENT: content(manifest)}
        commit_bytes(run.held_cache, json.dumps(held, indent=2).encode())
    reader = str(run.root.resolve())
    note = owner.readers / f"{digest(reader)}.json"
    try:
        if not note.is_file():
            note.parent.mkdir(exist_ok=True)
            commit_bytes(note, json.dumps({RUN: reader}).encode())
    except OSError as error:  # somebody else's run may be read-only
        log.info("%s cannot know that its cache is in use: %s", owner.root, error)


def trainings_on(run: RunFolder, manifest: Manifest) -> list[Path]:
    """Folders of trainings that began with a cache, which they need as it is: of its own run, and of others.

    Args:
        run: whose cache it is. manifest: of the cache.
    """
    present = content(manifest) if run.readers.is_dir() else None
    readers = [_reader(note) for note in sorted(run.readers.glob("*.json"))]
    holders = [reader for reader in readers if reader is not None and _holds(reader, present)]
    return [*run.begun, *(path for reader in holders for path in (*reader.begun, reader.held_cache))]


def _reader(note: Path) -> RunFolder | None:
    try:
        return RunFolder(Path(str(parse_json(read_regular(note))[RUN])))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _holds(reader: RunFolder, present: str | None) -> bool:
    """Whether a run is there that began with what a cache contains at present."""
    try:
        return _read(reader.held_cache) == present
    except DataError:
        return False


def content(manifest: Manifest) -> str:
    """Identity of all that a cache has committed: each task's fingerprint, numbers of rows, and files with hashes."""
    entries = manifest.entries()
    return digest([asdict(entries[name]) for name in sorted(entries)])


def _read(path: Path) -> str | None:
    try:
        return str(parse_json(read_regular(path))[CONTENT])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        require_reachable(error, str(path))
        raise DataError(f"{path} is damaged: delete it, if the cache is still the same; it is written again") from error
