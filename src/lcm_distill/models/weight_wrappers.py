"""A network's weights inside what others save around them: tables in tables, and prefixes of names."""

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from lcm_distill.core.errors import UserError

ANCHOR = "x_embedder.proj.weight"
"""A weight that every MicroDiT has; what stands before its name in a file stands before all of them."""

GUIDANCE_PREFIX = "cfg_embedder."
"""What the names of a student's guidance embedder begin with; a teacher has none."""

LAYERS = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What `torch.compile`, FSDP and activation checkpointing put between the parts of a name."""

OPTIMISER = re.compile(r"opt|optim\w*", re.IGNORECASE)
"""Keys of tables that have a network's names and are no network."""

SHOWN = 6
"""Keys that a message names."""


class _Found(NamedTuple):
    """A network in a file: where it is, and its values by published name."""

    where: str
    values: dict[str, Any]


def unwrap(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The values of a file's network by published name.

    The network may lie in tables (`{"state_dict": ...}`, composer's `{"state": {"model": ...}}`) and its names may
    begin with a prefix (`module.`, `dit.`). Of several networks the one average is taken, whose place has `ema` in its
    name, and a warning says so. A flat table without a MicroDiT is returned as it is.

    Args:
        content: what the file holds. path: of the file, for messages.

    Raises:
        UserError: the file holds several networks, neither a network nor a flat table, or two tensors of one name.
    """
    found = {network.where: network for network in _networks(content, (), path)}
    if not found:
        if content and not any(isinstance(value, Mapping) for value in content.values()):
            return dict(content)
        raise no_network(path, content)
    if len(found) == 1:
        return next(iter(found.values())).values
    averages = [where for where in found if re.search(r"(?:^|[._])ema(?:[._]|$)", where)]
    if len(averages) != 1:
        raise UserError(
            f"{path} holds several networks, under {_few(sorted(found))}: save the tensors of one of them alone"
        )
    others = _few(sorted(found.keys() - averages))
    warnings.warn(f"{path}: the average under {averages[0]!r} is used, not {others}", stacklevel=3)
    return found[averages[0]].values


def no_network(path: Path, content: Mapping[str, Any]) -> UserError:
    """The error of a file without a MicroDiT, which names what it has at the top."""
    return UserError(
        f"{path} holds no MicroDiT, of which no name ends in {ANCHOR}; at the top it has {_few(list(content))}: give "
        "a file of the network's tensors"
    )


def _networks(table: Mapping[str, Any], place: tuple[str, ...], path: Path) -> Iterator[_Found]:
    """Every network of a table and of those inside it."""
    names: dict[str, str] = {}
    for own in table:
        if isinstance(cast(Any, own), str) and (twin := names.setdefault(LAYERS.sub("", own), own)) != own:
            raise UserError(f"{path} holds {twin!r} and {own!r}, which are one tensor's name: leave one of them out")
    for anchor in [name for name in names if name == ANCHOR or name.endswith("." + ANCHOR)]:
        prefix = anchor.removesuffix(ANCHOR)
        share = {name.removeprefix(prefix): table[own] for name, own in names.items() if name.startswith(prefix)}
        tensors = {name: value for name, value in share.items() if not isinstance(value, Mapping)}
        yield _Found(".".join([*place, prefix]), tensors)
    for name, own in names.items():
        if isinstance(table[own], Mapping) and not OPTIMISER.fullmatch(name):
            yield from _networks(table[own], (*place, name), path)


def _few(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown or "nothing"
