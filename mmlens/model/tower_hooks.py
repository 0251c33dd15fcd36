"""Hook points for the MLPs outside the language model: vision tower, projector, and their like."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from torch import Tensor
from transformer_lens.hook_points import HookPoint

from mmlens.adapter import Tower, TowerMLP
from mmlens.hook_names import Point, mlp_hook


class TowerHooks:
    """TransformerLens hook points on the MLPs of the towers.

    For ``second(activation(first(x)))``: ``hook_pre`` is the output of ``first``, ``hook_post`` the
    input of ``second``, which is the neurons' activation. With an up branch ``hook_pre_linear`` is
    its output, and ``hook_post`` the product. A hook's return value takes its place.

    Args:
        towers: name -> tower.
    """

    def __init__(self, towers: Mapping[str, Tower]) -> None:
        self.towers = dict(towers)
        self.hook_dict: dict[str, HookPoint] = {}
        for module, tower in self.towers.items():
            for layer in range(len(tower.mlps)):
                for point in ("pre", "pre_linear", "post") if tower.gated else ("pre", "post"):
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
        def after(point: HookPoint) -> Callable[..., Tensor]:
            return lambda _module, _args, output: point(output)

        def before(point: HookPoint) -> Callable[..., tuple[Tensor, ...]]:
            return lambda _module, args: (point(args[0]), *args[1:])

        names: tuple[Point, ...] = ("pre", "post", "pre_linear")
        pre, post, linear = (self.hook_dict.get(mlp_hook(module, layer, p)) for p in names)
        assert pre is not None and post is not None
        stack.callback(mlp.first.register_forward_hook(after(pre)).remove)
        stack.callback(mlp.second.register_forward_pre_hook(before(post)).remove)
        if mlp.up is not None and linear is not None:
            stack.callback(mlp.up.register_forward_hook(after(linear)).remove)
