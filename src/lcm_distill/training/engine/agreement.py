"""What ranks tell each other: one rank's decision, or what each has found."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch.distributed as dist

from lcm_distill.core.errors import UserError

Decision = TypeVar("Decision")


def broadcast(value: Any, group: Any = None) -> Any:
    """Rank 0's value, on every rank. A collective call; without a process group, the value itself."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=group)
    return box[0]


def decide_on_main(decide: Callable[[], Decision]) -> Decision:
    """The result of `decide` on rank 0, or the error of a user or file system that it raised there, on every rank."""
    decided: Any = None
    if not dist.is_initialized() or dist.get_rank() == 0:
        try:
            decided = decide()
        except (UserError, OSError) as error:
            decided = error
    decided = broadcast(decided)
    if isinstance(decided, (UserError, OSError)):
        raise decided
    return cast(Decision, decided)


def all_found(found: list[str]) -> list[str]:
    """What any rank has found, without repetition and the same on every rank. A collective call."""
    if not dist.is_initialized():
        return found
    lists: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(lists, found)
    return list(dict.fromkeys(item for part in lists for item in part))
