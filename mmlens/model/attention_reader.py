"""What each layer's attention computes from, read while it runs: rotated queries and keys, values, the mask.

No pattern is formed for it, so the forward keeps its fused kernel. The mask is the one that Hugging
Face hands to the layer: windows, prefixes and padding are in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mmlens.backbone.bridge.attention import EXPLICIT_KERNELS, implementation
from mmlens.backbone.layout import layout_of, parts_of
from mmlens.errors import SpliceError, UnsupportedModelError
from mmlens.hooks.editing import Hook
from mmlens.model.hooked_mllm import HookedMLLM

_QUERIES, _KEYS, _VALUES = "hook_rot_q", "hook_rot_k", "hook_v"


@dataclass(frozen=True, eq=False)
class LayerAttention:
    """What one layer's attention over a batch is computed from.

    Attributes:
        queries: rotated.
        keys: rotated; query heads share them in groups of neighbours.
        values: None where they were not asked for.
        scale: of the products, before the soft cap.
        soft_cap: scores s become cap tanh(s / cap); None: they do not.
        mask: as Hugging Face hands it to the layer: None where it is only causal.
    """

    queries: Float[Tensor, "batch pos head d_head"]
    keys: Float[Tensor, "batch pos group d_head"]
    values: Float[Tensor, "batch pos group d_head"] | None
    scale: float
    soft_cap: float | None
    mask: Tensor | None


class AttentionReader:
    """Hands over each layer's attention as soon as it is known, and keeps nothing of it.

    Use :meth:`hooks` inside :meth:`masks`; the forward may not use a cache.

    Args:
        model: a hooked model, of either backbone.
        read: called as ``read(layer, attention)``, before the layer's MLP.
        layers: which; default: all.
        values: whether values are read too.

    Raises:
        UnsupportedModelError: a layer has no attention whose queries and keys pass a hook point, or
            one whose mask cannot be read.
    """

    def __init__(
        self,
        model: HookedMLLM,
        read: Callable[[int, LayerAttention], None],
        layers: Sequence[int] | None = None,
        *,
        values: bool = False,
    ) -> None:
        decoder = model.adapter.decoder()
        layout = layout_of(decoder)
        self._read = read
        self._points = (_QUERIES, _KEYS, _VALUES) if values else (_QUERIES, _KEYS)
        chosen = range(len(decoder.layers)) if layers is None else layers
        self._layers: dict[int, nn.Module] = {layer: decoder.layers[layer] for layer in chosen}
        self._attentions: dict[int, Any] = {
            layer: parts_of(module, layout).get("attn") for layer, module in self._layers.items()
        }
        self._seen: dict[int, dict[str, Tensor]] = {}
        self._masks: dict[int, Tensor | None] = {}
        for layer in self._layers:
            if problem := self._problem(model, layer):
                raise UnsupportedModelError(
                    f"The attention of layer {layer} cannot be read: {problem.rstrip('.')}. The scores "
                    "prob, mean and max need no attention; contributions can be left out."
                )

    def hooks(self) -> list[Hook]:
        """What records at the hook points of every layer."""
        return [
            (f"blocks.{layer}.attn.{point}", partial(self._record, layer, point))
            for layer in self._layers
            for point in self._points
        ]

    @contextmanager
    def masks(self) -> Iterator[None]:
        """Also record the masks that Hugging Face hands to the layers, while the hooks are on."""
        with ExitStack() as stack:
            for index, layer in self._layers.items():
                record = partial(self._record_mask, index)
                handle = layer.register_forward_pre_hook(record, with_kwargs=True)
                stack.callback(handle.remove)
            stack.callback(self._seen.clear)
            stack.callback(self._masks.clear)
            yield

    def _record_mask(
        self, layer: int, _module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._masks[layer] = kwargs.get("attention_mask")
        self._seen[layer] = {}

    def _record(self, layer: int, point: str, tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG002
        seen = self._seen[layer]
        seen[point] = tensor.detach()
        if len(seen) == len(self._points):
            self._read(layer, self._attention(layer, self._seen.pop(layer)))

    def _attention(self, layer: int, seen: dict[str, Tensor]) -> LayerAttention:
        module = self._attentions[layer]
        if getattr(module, "sinks", None) is not None:
            raise SpliceError(
                f"The attention of layer {layer} has sinks beside its keys, which are not known here; "
                "leave out what needs attention for this model."
            )
        queries, keys, values = seen[_QUERIES], seen[_KEYS], seen.get(_VALUES)
        if values is not None and keys.shape[:3] != values.shape[:3]:
            raise SpliceError(
                f"Layer {layer}'s keys {tuple(keys.shape)} and values {tuple(values.shape)} are laid "
                "out differently: this version of TransformerLens is not known here."
            )
        scale = getattr(module, "scaling", None)
        return LayerAttention(
            queries,
            keys,
            values,
            queries.shape[-1] ** -0.5 if scale is None else float(scale),
            getattr(module, "attn_logit_softcapping", None),
            self._masks.pop(layer),
        )

    def _problem(self, model: HookedMLLM, layer: int) -> str | None:
        """Why a layer's attention cannot be read; None where it can."""
        names = [f"blocks.{layer}.attn.{point}" for point in self._points]
        module = self._attentions[layer]
        if module is None or any(name not in model.hook_dict for name in names):
            return "it has no softmax attention"
        if why := next(filter(None, map(model.why_silent, names)), None):
            return why
        if model.cfg.backbone == "bridge" and implementation(module) not in EXPLICIT_KERNELS:
            return (
                f"its implementation {implementation(module)!r} has no mask that can be read; call "
                "hf.set_attn_implementation('sdpa') first"
            )
        return None
