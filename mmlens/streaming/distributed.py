"""Several processes that share samples by rank, under torchrun or accelerate launch."""

from __future__ import annotations

import os
from functools import reduce
from operator import add
from typing import Any

import torch.distributed as dist


def rank_and_world() -> tuple[int, int]:
    """(rank, number of processes), from the process group or the launcher's environment."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def all_merged(statistics: Any, world: int) -> Any:
    """The sum of all processes' statistics, in the order of ranks, on every one of them."""
    if world == 1:
        return statistics
    parts: list[Any] = [None] * world
    dist.all_gather_object(parts, statistics, group=_group())
    return reduce(add, parts)


def from_first(value: Any) -> Any:
    """What the first process passes here, on every one of them; the others wait for it."""
    if rank_and_world()[1] == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0, group=_group())
    return held[0]


def _group() -> Any:
    # Statistics lie on the CPU, and gloo is the backend that every build has.
    if not dist.is_initialized():
        dist.init_process_group("gloo")
        return None
    return dist.new_group(backend="gloo")
