"""TransformerLens hook points at the inputs and outputs of Hugging Face modules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformer_lens.hook_points import HookPoint

from mmlens.backbone.layout import Parts, epsilon_of, norm_names
from mmlens.errors import SpliceError

#: A part and which side of it, ``in`` or ``out``.
Site = tuple[str, str]
LAST_SITES: Mapping[str, Site] = {
    "unembed.hook_in": ("unembed", "in"),
    "unembed.hook_out": ("unembed", "out"),
}


class Wiring:
    """Functions at the inputs and outputs of modules, called in the order in which they came."""

    def __init__(self) -> None:
        self._before: defaultdict[nn.Module, list[Callable[[Tensor], Tensor]]]
        self._before = defaultdict(list)
        self._after: defaultdict[nn.Module, list[Callable[[Tensor, Tensor], Tensor]]]
        self._after = defaultdict(list)
        self._handles: list[RemovableHandle] = []

    def before(self, module: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
        """``function(input)`` takes the place of the module's input."""
        self._before[module].append(function)

    def after(self, module: nn.Module, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        """``function(output, input)`` takes the place of the module's output."""
        self._after[module].append(function)

    def at_call(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        """A plain forward pre-hook with keyword arguments."""
        self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def connect(self) -> None:
        """Install everything as PyTorch hooks."""
        for module, functions in self._before.items():
            self.at_call(module, _before_hook(functions))
        for module, functions in self._after.items():
            # First among hooks: transformers' capturing of hidden states reads what comes out.
            handle = module.register_forward_hook(
                _after_hook(functions), with_kwargs=True, prepend=True
            )
            self._handles.append(handle)

    def disconnect(self) -> None:
        """Take every PyTorch hook away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def _before_hook(functions: list[Callable[[Tensor], Tensor]]) -> Callable[..., Any]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = _input(args, kwargs)
        for function in functions:
            x = function(x)
        return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})

    return hook


def _after_hook(functions: list[Callable[[Tensor, Tensor], Tensor]]) -> Callable[..., Any]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        x, y = _input(args, kwargs), output[0] if isinstance(output, tuple) else output
        for function in functions:
            y = function(y, x)
        return (y, *output[1:]) if isinstance(output, tuple) else y

    return hook


def _input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]


def wire_sites(
    wiring: Wiring, parts: Parts, sites: Mapping[str, Site], points: Mapping[str, HookPoint]
) -> None:
    """Wire the hook points that are a module's input or output."""
    for name, (part, side) in sites.items():
        if (point := points.get(name)) is None:
            continue
        if side == "in":
            wiring.before(parts[part], point)
        else:
            wiring.after(parts[part], lambda output, _, point=point: point(output))


def layer_sites(parts: Parts) -> dict[str, Site]:
    """Where a layer's hook points sit that are a module's input or output."""
    pre = "mlp.gate" if "mlp.gate" in parts else "mlp.in"
    return {
        "hook_resid_pre": ("", "in"),
        "attn.hook_q": ("attn.q", "out"),
        "attn.hook_k": ("attn.k", "out"),
        "attn.hook_v": ("attn.v", "out"),
        "attn.hook_z": ("attn.o", "in"),
        "hook_attn_out": (branch_end("attn", parts), "out"),
        "mlp.hook_pre": (pre, "out"),
        "mlp.hook_pre_linear": ("mlp.in", "out"),
        "mlp.hook_post": ("mlp.out", "in"),
        "hook_mlp_out": (branch_end("mlp", parts), "out"),
        "hook_resid_post": ("", "out"),
    }


def branch_end(branch: str, parts: Parts) -> str:
    """The part whose output is added to the residual stream: a norm where one follows."""
    post = {"attn": "ln1_post", "mlp": "ln2_post"}[branch]
    return post if post in parts else branch


def passed(point: HookPoint, value: Tensor) -> tuple[Tensor, bool]:
    """What a hook point makes of a value, and whether that differs from it.

    A hook may give another tensor or write into the one it got.
    """
    before = value.clone() if value.is_inference() else value._version
    result = point(value)
    if result is not value:
        return result, True
    if isinstance(before, Tensor):
        return result, not torch.equal(before, value)
    return result, value._version != before


class ResidMid:
    """The residual stream after attention, of one layer.

    A layer adds its MLP's output to the stream that it took before ``ln2``. A module's input is all
    that a hook can exchange, so a changed stream is put under the MLP's output afterwards.
    """

    def __init__(self, point: HookPoint) -> None:
        self._point = point
        self._changed: tuple[Tensor, Tensor] | None = None
        self._branch: Tensor | None = None

    def at_norm(self, stream: Tensor) -> Tensor:
        """Through the hook point, at the input of ``ln2``."""
        result = self._point(stream)
        # Written in place, the layer's own tensor has changed already.
        self._changed = None if result is stream else (stream, result)
        return result

    def at_branch(self, output: Tensor, _: Tensor) -> Tensor:
        """Remember what the MLP adds."""
        self._branch = output
        return output

    def at_layer(self, output: Tensor, _: Tensor) -> Tensor:
        """The layer's output on the changed stream."""
        changed, branch = self._changed, self._branch
        self._changed = self._branch = None
        if changed is None or branch is None:
            return output
        before, after = changed
        if not torch.equal(output, before + branch):
            raise SpliceError(
                "hook_resid_mid cannot be changed here: the layer's output is not the sum of the "
                "residual stream and the MLP's output."
            )
        return after + branch


def wire_norm(wiring: Wiring, norm: nn.Module, name: str, points: Mapping[str, HookPoint]) -> None:
    """Wire the hook points of an RMS norm, those of them that have hooks.

    The norm's own output stands unless a hook changes something. Its gain is what it makes of ones,
    so weights stay where they are: offloaded, or stored as an offset from 1.
    """
    hooked = [points.get(one) for one in norm_names(name)]
    if not any(hooked):
        return
    at_scale, at_normalized = (point or HookPoint() for point in hooked)
    epsilon = cast(float, epsilon_of(norm))

    def through(output: Tensor, x: Tensor) -> Tensor:
        x = x if x.dtype == torch.float64 else x.float()
        scale = (x.square().mean(-1, keepdim=True) + epsilon).sqrt()
        scale, rescaled = passed(at_scale, scale)
        normalized, changed = passed(at_normalized, x / scale)
        if not (rescaled or changed):
            return output
        ones = torch.ones(x.shape[-1], dtype=x.dtype, device=x.device)
        gain = norm.forward(ones) * (1 + epsilon) ** 0.5
        return (normalized * gain).to(output.dtype)

    wiring.after(norm, through)
