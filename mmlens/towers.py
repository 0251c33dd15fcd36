"""Hook points for the MLPs outside the language model: vision tower, projector, and their like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mmlens.adapter import Tower, TowerMLP
from mmlens.names import mlp_hook


class TowerHooks:
    """TransformerLens hook points on the MLPs of the towers.

    For ``second(activation(first(x)))``: ``hook_pre`` is the output of ``first``, ``hook_post`` the
    input of ``second``, which is the neurons' activation. A hook's return value takes its place.

    Args:
        towers: name -> tower.
    """

    def __init__(self, towers: Mapping[str, Tower]) -> None:
        self.towers = dict(towers)
        self.hook_dict: dict[str, HookPoint] = {}
        for module, tower in self.towers.items():
            for layer in range(len(tower.mlps)):
                for point in ("pre", "post"):
                    name = mlp_hook(module, layer, point)
                    self.hook_dict[name] = HookPoint()
                    self.hook_dict[name].name = name

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Pass the MLPs' inner tensors through the hook points; nothing is left on leaving."""
        with ExitStack() as stack:
            for module, tower in self.towers.items():
                for layer, mlp in enumerate(tower.mlps):
                    self._attach(stack, module, layer, mlp)
            yield

    def _attach(self, stack: ExitStack, module: str, layer: int, mlp: TowerMLP) -> None:
        pre = self.hook_dict[mlp_hook(module, layer, "pre")]
        post = self.hook_dict[mlp_hook(module, layer, "post")]

        def after_first(_module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return pre(output)

        def before_second(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (post(args[0]), *args[1:])

        stack.callback(mlp.first.register_forward_hook(after_first).remove)
        stack.callback(mlp.second.register_forward_pre_hook(before_second).remove)
