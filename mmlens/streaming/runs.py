"""What belongs to each time that a module runs within one forward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mmlens.errors import HookError

Item = TypeVar("Item")


@dataclass
class Runs(Generic[Item]):
    """One item for each run of a module in a forward, handed to each layer in turn.

    A tower may run more than once, over pictures and then over videos.

    Attributes:
        items: in the order of the runs.
        fired: layer -> how often it has run.
    """

    items: Sequence[Item]
    fired: Counter[int] = field(default_factory=Counter)

    def next(self, layer: int) -> Item:
        """The item of the layer's next run.

        Raises:
            HookError: the layer runs more often than there are items.
        """
        turn = self.fired[layer]
        if turn >= len(self.items):
            raise HookError(
                f"Layer {layer} ran {turn + 1} times in one forward, but its adapter reported "
                f"{len(self.items)} runs; positions would be taken for those of other samples."
            )
        self.fired[layer] += 1
        return self.items[turn]
