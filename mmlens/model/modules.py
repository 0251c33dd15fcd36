"""The modules of a model whose MLPs have neurons."""

from __future__ import annotations

from dataclasses import dataclass

from mmlens.adapter import Tower
from mmlens.hook_names import Point, mlp_hook


@dataclass(frozen=True)
class ModuleInfo:
    """A module whose MLPs have neurons.

    Attributes:
        name: ``language``, ``vision``, ``projector``, ...
        layers: number of MLPs.
        width: neurons per layer.
        gated: whether the MLP multiplies the activation with an up branch.
        on_path: per layer, whether its neurons can influence the output.
    """

    name: str
    layers: int
    width: int
    gated: bool
    on_path: tuple[bool, ...]

    @classmethod
    def of_tower(cls, name: str, tower: Tower) -> ModuleInfo:
        """A tower as a module."""
        layers = len(tower.mlps)
        return cls(name, layers, tower.width, tower.gated, tower.on_path or (True,) * layers)

    @property
    def shape(self) -> tuple[int, int]:
        """(layers, neurons per layer)."""
        return self.layers, self.width

    def hook(self, layer: int, point: Point) -> str:
        """The name of a hook point of one layer's MLP."""
        return mlp_hook(self.name, layer, point)

    def influential(self) -> list[tuple[int, int]]:
        """(layer, index) of the neurons that can influence the output."""
        used = [layer for layer, on_path in enumerate(self.on_path) if on_path]
        return [(layer, index) for layer in used for index in range(self.width)]
