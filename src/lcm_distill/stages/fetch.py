"""Fetching the weights of the encoders into a folder, for machines without network."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcm_distill.config import EncodersConfig
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.core.json import parse_json
from lcm_distill.core.regular_files import read_regular
from lcm_distill.encoders.text import save_text_encoder
from lcm_distill.encoders.vae import save_vae
from lcm_distill.pipeline.atomic_writes import commit_folder, remove_orphans_of, require_writable

RECORD = "fetched.json"
"""File in a finished folder that records what it was fetched from."""


@dataclass(frozen=True)
class Part:
    """One encoder that is fetched.

    Attributes:
        key: configuration key that names the encoder. source: its configured value.
        folder: that it is fetched into.
        setting: the value of `key` that uses the folder.
        save: (source, folder) writes the encoder.
    """

    key: str
    source: str
    folder: Path
    setting: str
    save: Callable[[str, Path], None]

    def is_done(self) -> bool:
        """Whether the encoder has been fetched.

        Raises:
            UserError: the folder contains something else, or (DataError) its record is damaged.
        """
        if not self.folder.exists():
            return False
        record = self.folder / RECORD
        if not record.is_file():
            raise UserError(f"{self.folder} was not made by `lcm fetch`: choose another --to")
        try:
            stored = parse_json(read_regular(record))[self.key]
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(f"{record} is damaged: delete {self.folder}, and `lcm fetch` fetches it again") from error
        if stored != self.source:
            raise UserError(f"{self.folder} holds {stored}, not {self.source}: choose another --to, or delete it")
        return True


def fetch(encoders: EncodersConfig, folder: Path, text_only: bool = False) -> dict[str, str]:
    """Write the VAE to `folder`/vae and the text tower to `folder`/text, unless they are there already.

    Args:
        text_only: leave the VAE out.

    Returns:
        The value of each configuration key that uses them.

    Raises:
        UserError: there is nothing to fetch, it cannot be fetched, or a folder contains something else.
    """
    parts = _parts(encoders, folder, text_only)
    remove_orphans_of(*(part.folder for part in parts))
    wanted = [part for part in parts if not part.is_done()]
    for part in wanted:
        require_writable(part.folder)
    for part in wanted:
        commit_folder(part.folder, lambda temporary, part=part: _write(part, temporary))
    return {part.key: part.setting for part in parts}


def plan_fetch(encoders: EncodersConfig, folder: Path, text_only: bool = False) -> dict[str, dict[str, Any]]:
    """What `fetch` would do: for each key the source, the folder and whether it is done.

    Raises:
        UserError: there is nothing to fetch, or a folder contains something else.
    """
    return {
        part.key: {"from": part.source, "to": str(part.folder), "done": part.is_done()}
        for part in _parts(encoders, folder, text_only)
    }


def _parts(encoders: EncodersConfig, folder: Path, text_only: bool) -> list[Part]:
    vae, text = folder / "vae", folder / "text"
    parts = [
        Part("encoders.vae", encoders.vae, vae, str(vae), save_vae),
        Part("encoders.text", encoders.text, text, f"openclip:local-dir:{text}", save_text_encoder),
    ]
    wanted = [part for part in parts[text_only:] if part.source != "shapes"]
    if not wanted:
        raise UserError(
            f"{' and '.join(part.key for part in parts[text_only:])} = 'shapes' ships with the package: choose "
            "--preset microdit_xl_512, or set what to fetch"
        )
    return wanted


def _write(part: Part, folder: Path) -> None:
    part.save(part.source, folder)
    (folder / RECORD).write_text(json.dumps({part.key: part.source}))
