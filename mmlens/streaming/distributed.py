"""Several processes that share samples by rank, under torchrun or accelerate launch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

Item = TypeVar("Item")
Part = TypeVar("Part")


def rank_and_world() -> tuple[int, int]:
    """(rank, number of processes), from the process group or the launcher's environment."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class Share:
    """One process's part of a pass that several run together.

    Attributes:
        rank: which process this is.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def of_launcher(cls) -> Share:
        """The share that torchrun, accelerate launch or an open process group gives this process."""
        return cls(*rank_and_world())

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every ``world``-th item from ``rank`` on."""
        return items[self.rank :: self.world]

    def file(self, path: str | PathLike[str] | None) -> Path | None:
        """The file that this process saves its part to: the path itself where it is alone."""
        if path is None:
            return None
        whole = Path(path)
        if self.world == 1:
            return whole
        return whole.with_name(f"{whole.stem}.{self.rank}-of-{self.world}{whole.suffix}")

    def merged(self, part: Part) -> Part:
        """The sum of all processes' parts, in the order of ranks, on every one of them."""
        if self.world == 1:
            return part
        parts: list[Any] = [None] * self.world
        dist.all_gather_object(parts, part, group=_group())
        return reduce(add, parts)


#: The share of a process that runs a pass by itself, whatever the launcher.
ALONE = Share()


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
