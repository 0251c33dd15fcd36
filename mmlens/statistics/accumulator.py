"""Reduction of activations inside a hook, on the device, the moment they exist.

Nothing of size [tokens x neurons] outlives its layer: a layer's activations are read in slices
that fit the cache, and leave [key, group, neuron] numbers behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlens.errors import HookError
from mmlens.statistics.neuron_statistics import ModuleStatistics

# Elements of one slice: small enough for a CPU's cache, large enough to fill a GPU.
_SLICE = {"cpu": 1 << 17, "cuda": 1 << 25}


@dataclass(frozen=True)
class PositionIndex:
    """Which positions of an activation count for which (key, group).

    Attributes:
        counted: for every (key, group) with a token in this batch, the flat positions it counts.
        pairs: the key and the group of each of them.
        everything: a single (key, group) counts every position, so that nothing needs to be gathered.
        size: how many positions there are, padding included.
    """

    counted: tuple[Int[Tensor, " _"], ...]
    pairs: Int[Tensor, "2 pair"]
    everything: bool
    size: int

    @classmethod
    def of(cls, groups: Bool[Tensor, "group row pos"], keys: Int[Tensor, " row"]) -> PositionIndex:
        """From the groups' masks over [row, pos] and the key that each row belongs to."""
        counted, pairs = [], []
        for key in keys.unique().tolist():
            rows = (keys == key)[:, None].to(groups.device)
            for group, mask in enumerate(groups):
                here = (mask & rows).flatten().nonzero()[:, 0]
                if len(here):
                    counted.append(here)
                    pairs.append((key, group))
        return cls(
            counted=tuple(counted),
            pairs=torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T,
            everything=len(counted) == 1 and len(counted[0]) == groups[0].numel(),
            size=groups[0].numel(),
        )


class Accumulator:
    """Running statistics of one module, on the device of its activations.

    Args:
        statistics: what to add to; its tensors are copied.
        device: where the activations are.
    """

    def __init__(self, statistics: ModuleStatistics, device: torch.device) -> None:
        self._values = {n: v.to(device, copy=True) for n, v in statistics.tensors().items()}

    def add_tokens(self, where: PositionIndex) -> None:
        """Count a batch's positions, once for all layers."""
        keys, groups = where.pairs.tolist()
        for key, group, here in zip(keys, groups, where.counted, strict=True):
            self._values["tokens"][key, group] += len(here)

    def add(
        self,
        layer: int,
        pre: Float[Tensor, "*row pos neuron"],
        activation: Callable[[Tensor], Tensor],
        where: PositionIndex,
    ) -> None:
        """Reduce one layer's activations.

        Args:
            layer: the layer.
            pre: pre-activations.
            activation: the activation function.
            where: what counts where; its flat positions are those of ``pre``.

        Raises:
            HookError: ``pre`` has other positions than ``where``.
        """
        flat = pre.detach().flatten(0, -2)
        if len(flat) != where.size:
            raise HookError(
                f"Layer {layer} has activations at {len(flat)} positions, but the adapter reported "
                f"{where.size}: nothing is counted at the wrong place. The adapter's tower_rows does "
                "not fit these inputs."
            )
        step = max(1, _SLICE.get(flat.device.type, _SLICE["cpu"]) // flat.shape[-1])
        keys, groups = where.pairs.tolist()
        for key, group, here in zip(keys, groups, where.counted, strict=True):
            target = {name: value[key, group] for name, value in self._values.items()}
            home = target["positive"].device  # layers may lie on several devices, counts on one
            here = here.to(flat.device)  # noqa: PLW2901
            for start in range(0, len(here), step):
                part = (
                    flat[start : start + step]
                    if where.everything
                    else flat.index_select(0, here[start : start + step])
                )
                # Slices are summed in float32 and added up in float64: bf16 would lose counts
                # above 256 and digits of the sums.
                value = activation(part).float()
                largest, smallest = value.amax(0).to(home), value.amin(0).to(home)
                target["positive"][layer] += (value > 0).sum(0).to(home)
                target["total"][layer] += value.sum(0).to(home)
                torch.maximum(target["maximum"][layer], largest, out=target["maximum"][layer])
                torch.minimum(target["minimum"][layer], smallest, out=target["minimum"][layer])
                target["squares"][layer] += value.square().sum(0).to(home)

    def statistics(self) -> ModuleStatistics:
        """What has been counted, on the CPU."""
        values = {name: value.to("cpu", copy=True) for name, value in self._values.items()}
        return ModuleStatistics(**values)
