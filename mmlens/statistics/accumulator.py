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
class Weights:
    """Which positions of an activation count for which (key, group).

    Attributes:
        cells: for every (key, group) with a token in this batch, the flat positions it counts.
        index: [2, cell], the key and the group of each cell.
        everything: a single cell counts every position, so that nothing needs to be gathered.
        positions: how many positions there are, padding included.
    """

    cells: tuple[Int[Tensor, " _"], ...]
    index: Int[Tensor, "2 cell"]
    everything: bool
    positions: int

    @classmethod
    def of(cls, groups: Bool[Tensor, "group row pos"], keys: Int[Tensor, " row"]) -> Weights:
        """From the groups' masks over [row, pos] and the key that each row belongs to."""
        cells, index = [], []
        for key in keys.unique().tolist():
            rows = (keys == key)[:, None].to(groups.device)
            for group, mask in enumerate(groups):
                here = (mask & rows).flatten().nonzero()[:, 0]
                if len(here):
                    cells.append(here)
                    index.append((key, group))
        everything = len(cells) == 1 and len(cells[0]) == groups[0].numel()
        return cls(
            cells=tuple(cells),
            index=torch.tensor(index, dtype=torch.int64).reshape(-1, 2).T,
            everything=everything,
            positions=groups[0].numel(),
        )


class Accumulator:
    """Running statistics of one module, on the device of its activations.

    Args:
        statistics: where to go on from; its tensors are copied.
        device: where the activations are.
    """

    def __init__(self, statistics: ModuleStatistics, device: torch.device) -> None:
        self._values = {n: v.to(device, copy=True) for n, v in statistics.tensors().items()}

    def add_tokens(self, weights: Weights) -> None:
        """Count a batch's positions, once for all layers."""
        keys, groups = weights.index
        for key, group, cell in zip(keys.tolist(), groups.tolist(), weights.cells, strict=True):
            self._values["tokens"][key, group] += len(cell)

    def add(
        self,
        layer: int,
        pre: Float[Tensor, "*row pos neuron"],
        activation: Callable[[Tensor], Tensor],
        weights: Weights,
    ) -> None:
        """Reduce one layer's activations.

        Args:
            layer: the layer.
            pre: pre-activations.
            activation: the activation function.
            weights: what counts where; its flat positions are those of ``pre``.

        Raises:
            HookError: ``pre`` has other positions than ``weights``.
        """
        flat = pre.detach().flatten(0, -2)
        if len(flat) != weights.positions:
            raise HookError(
                f"Layer {layer} has activations at {len(flat)} positions, but {weights.positions} were "
                "told of: nothing is counted at the wrong place. The adapter's tower_rows does not fit "
                "these inputs."
            )
        step = max(1, _SLICE.get(flat.device.type, _SLICE["cpu"]) // flat.shape[-1])
        keys, groups = weights.index.tolist()
        for key, group, cell in zip(keys, groups, weights.cells, strict=True):
            target = {name: value[key, group] for name, value in self._values.items()}
            home = target["positive"].device  # layers may lie on several devices, counts on one
            cell = cell.to(flat.device)  # noqa: PLW2901
            for start in range(0, len(cell), step):
                part = (
                    flat[start : start + step]
                    if weights.everything
                    else flat.index_select(0, cell[start : start + step])
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
        return ModuleStatistics(
            **{name: v.to("cpu", copy=True) for name, v in self._values.items()}
        )
