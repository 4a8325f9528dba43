# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false, reportUnknownVariableType=false
"""Images in archives that no annotation names, of a source that looks into archives only as it reads images.

Whoever encodes an image of an archive has read the archive to its end, and records what else it holds before the commit
of the image's shard: the same whoever it is, in whatever order. Once all shards are committed, these images are counted
as left out in the manifest, among the rows of the catalog. There, records that were rejected become `MISSING` as well
if the archive turns out not to hold their image.
"""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lcm_distill.core.hashing import digest
from lcm_distill.core.json import parse_json
from lcm_distill.data.cache.catalog import Catalog
from lcm_distill.data.cache.manifest_rows import rejected_row
from lcm_distill.data.sources.file_tree import unnamed_member
from lcm_distill.data.sources.interface import MISSING, Listing
from lcm_distill.data.sources.record_validation import readable
from lcm_distill.pipeline.manifest import QUARANTINED, Manifest
from lcm_distill.pipeline.storage import Storage
from lcm_distill.pipeline.task import Task

FOLDER = "catalog/archives"
"""Files with what archives hold beside samples."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Members:
    """What an archive holds beside samples: paths, as the manifest spells them; and whether it is whole."""

    others: frozenset[str]
    whole: bool


def record_members(storage: Storage, catalog: Catalog, listing: Listing) -> None:
    """Record which images of an archive are no samples, to be counted once all is encoded."""
    others = _not_among(catalog, sorted(map(readable, listing.images)))
    content = {"archive": listing.archive, "others": others, "whole": listing.reason.startswith(MISSING)}
    storage.put(f"{FOLDER}/{digest(listing.archive)}.json", [json.dumps(content).encode()])


def members_are_recorded(storage: Storage) -> bool:
    """Whether any archive has been looked into; earlier versions did not."""
    return bool(storage.listing(FOLDER))


def count_members(manifest: Manifest, task: Task, catalog: Catalog, archive_of: Callable[[str], str]) -> None:
    """Add what the archives hold beside samples to the rows of the catalog, unless it is there already.

    Args:
        task: of the catalog.
        archive_of: the archive that an image is read from, as of `Listing`; if it is in none, any other path.

    Raises:
        DataError: a part of the manifest is damaged.
    """
    found = _recorded(manifest.storage)
    if not found:
        return
    rows = manifest.read([task]).to_pylist()
    others = set[str]().union(*(members.others for members in found.values())) - {row["source"] for row in rows}
    missing = _missing_among(rows, manifest, catalog, lambda path: found.get(archive_of(path)))
    named = [{**row, "error": f"{MISSING}; {row['error']}"} if row["source"] in missing else row for row in rows]
    added = [rejected_row(unnamed_member(path)) for path in _not_among(catalog, sorted(others))]
    if added or missing:
        manifest.commit(task, named + added, None)
        manifest.drop_merged([task.name])
        log.info("counted %d images in archives that no annotation names", len(added))


def _recorded(storage: Storage) -> dict[str, _Members]:
    """What was recorded, by archive; a damaged record is none."""
    found = dict[str, _Members]()
    for file in storage.listing(FOLDER):
        try:
            content: Any = parse_json(storage.read(file))
            found[content["archive"]] = _Members(frozenset(map(str, content["others"])), bool(content["whole"]))
        except (ValueError, KeyError, TypeError):
            log.warning("%s is damaged: images that no annotation names are not counted", storage.locate(file))
    return found


def _missing_among(
    rows: Iterable[dict[str, Any]], manifest: Manifest, catalog: Catalog, archive_of: Callable[[str], _Members | None]
) -> set[str]:
    """The images of rejected records that their archive does not hold, and which do not say so yet."""
    rejected = {
        row["source"]
        for row in rows
        if row["kind"] == "annotation" and row["status"] == QUARANTINED and not row["error"].startswith(MISSING)
    }
    no_samples, missing = set(_not_among(catalog, sorted(rejected))), set[str]()
    for path in no_samples:
        members = archive_of(path)
        if members is not None and members.whole and path not in members.others:
            missing.add(path)
    return missing | ((rejected - no_samples) & _missing_samples(manifest))


def _missing_samples(manifest: Manifest) -> set[str]:
    """Paths of samples without an image."""
    import pyarrow.compute as pc  # which commands that only look can do without

    entries = manifest.entries().values()
    tasks = [Task(entry.task, entry.fingerprint) for entry in entries if entry.quarantined]
    rows = manifest.read(tasks, ["kind", "source", "error"])
    return set(rows.filter((pc.field("kind") == "image") & (pc.field("error") == MISSING))["source"].to_pylist())


def _not_among(catalog: Catalog, paths: list[str]) -> list[str]:
    """Those of the paths that are of no sample."""
    import pyarrow.compute as pc

    table = pa.table({"path": pa.array(paths, pa.string())})
    samples = table.filter(pc.field("path").isin(catalog.samples["path"].combine_chunks()))
    known = set(samples["path"].to_pylist())
    return [path for path in paths if path not in known]
