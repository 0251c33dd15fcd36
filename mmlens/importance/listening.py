"""Hearing rotated queries, keys and the mask of every layer's attention, on either backbone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mmlens.backbone.bridge.attention import EXPLICIT_KERNELS, implementation
from mmlens.backbone.layout import layout_of, parts_of
from mmlens.errors import HookError, UnsupportedModelError
from mmlens.hooks import Hook
from mmlens.importance.attention_weights import Heads
from mmlens.model.hooked_mllm import HookedMLLM

_POINTS = ("hook_rot_q", "hook_rot_k")


class AttentionListener:
    """Keeps each layer's queries and keys from its attention until its MLP, and no longer.

    Args:
        model: a hooked model.

    Raises:
        UnsupportedModelError: a layer has no attention whose queries and keys pass a hook point.
    """

    def __init__(self, model: HookedMLLM) -> None:
        self._on_bridge = model.cfg.backbone == "bridge"
        decoder = model.adapter.decoder()
        self._layers: list[nn.Module] = list(decoder.layers)
        layout = layout_of(decoder)
        self._attentions: list[Any] = [parts_of(x, layout).get("attn") for x in self._layers]
        self._heard: dict[tuple[int, str], Tensor] = {}
        self._masks: dict[int, Tensor | None] = {}
        for layer in range(len(self._layers)):
            self._check(model, layer)

    def hooks(self) -> list[Hook]:
        """What listens at ``hook_rot_q`` and ``hook_rot_k`` of every layer."""

        def keep(layer: int, point: str) -> Any:
            def hook_fn(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
                self._heard[layer, point] = tensor.detach()

            return hook_fn

        return [
            (f"blocks.{layer}.attn.{point}", keep(layer, point))
            for layer in range(len(self._layers))
            for point in _POINTS
        ]

    @contextmanager
    def masks(self) -> Iterator[None]:
        """Also hear the masks that Hugging Face hands to the layers; needed while the hooks listen."""
        with ExitStack() as stack:
            for index, layer in enumerate(self._layers):
                handle = layer.register_forward_pre_hook(self._mask_hook(index), with_kwargs=True)
                stack.callback(handle.remove)
            stack.callback(self._heard.clear)
            stack.callback(self._masks.clear)
            yield

    def take(self, layer: int) -> Attention:
        """What the layer's attention has computed from in this forward; it is forgotten here.

        Raises:
            HookError: nothing was heard.
        """
        try:
            queries, keys = (self._heard.pop((layer, point)) for point in _POINTS)
            mask = self._masks.pop(layer)
        except KeyError as error:
            raise HookError(
                f"Layer {layer}'s attention has not passed its hook points in this forward, so there is "
                "no attention to weigh tokens by; ask for the scores prob, mean and max alone."
            ) from error
        # Hooks see [batch, pos, head, d_head] on both backbones.
        queries, keys = queries.transpose(1, 2), keys.transpose(1, 2)
        module = self._attentions[layer]
        scale = getattr(module, "scaling", None)
        return Attention(
            queries,
            keys,
            queries.shape[-1] ** -0.5 if scale is None else float(scale),
            getattr(module, "attn_logit_softcapping", None),
            # Two dimensions tell padding only, which is left out anyhow.
            mask if mask is not None and mask.dim() == 4 else None,
        )

    def _mask_hook(self, layer: int) -> Any:
        def hook(_module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._masks[layer] = kwargs.get("attention_mask")

        return hook

    def _check(self, model: HookedMLLM, layer: int) -> None:
        problem = None
        names = [f"blocks.{layer}.attn.{point}" for point in _POINTS]
        if self._attentions[layer] is None or any(n not in model.hook_dict for n in names):
            problem = "it has no softmax attention"
        elif why := next(filter(None, map(model.why_silent, names)), None):
            problem = why
        elif self._on_bridge and implementation(self._attentions[layer]) not in EXPLICIT_KERNELS:
            problem = (
                f"attention implementation {implementation(self._attentions[layer])!r} does not tell its "
                "mask; call hf.set_attn_implementation('sdpa') first"
            )
        if problem:
            raise UnsupportedModelError(
                f"Attention scores were asked of layer {layer}, but {problem.rstrip('.')}. The scores prob, "
                "mean and max need no attention."
            )


class Attention:
    """One layer's attention over a batch, before anything is computed from it.

    Args:
        queries, keys: rotated, [batch, head, pos, d_head].
        scale, soft_cap, mask: as in :class:`mmlens.importance.attention_weights.Heads`, the mask of the batch.
    """

    def __init__(
        self,
        queries: Float[Tensor, "batch head pos d_head"],
        keys: Float[Tensor, "batch key_head pos d_head"],
        scale: float,
        soft_cap: float | None,
        mask: Tensor | None,
    ) -> None:
        self._queries, self._keys = queries, keys
        self._scale, self._soft_cap, self._mask = scale, soft_cap, mask

    def row(self, index: int, real: Bool[Tensor, " pos"]) -> Heads:
        """The attention of one row among its real (not padding) tokens."""
        here = contiguous(real)
        mask = self._mask
        if mask is not None:
            mask = mask[index if mask.shape[0] > 1 else 0][..., : len(real)]
            mask = mask[:, here][:, :, here]
        return Heads(
            self._queries[index][:, here],
            self._keys[index][:, here],
            self._scale,
            self._soft_cap,
            mask,
        )


def contiguous(real: Bool[Tensor, " pos"]) -> slice | Tensor:
    """The true positions: a slice where they are neighbours, so that indexing copies nothing."""
    found = real.nonzero()[:, 0]
    if not len(found):
        return slice(0, 0)
    first, last = int(found[0]), int(found[-1])
    return slice(first, last + 1) if last - first + 1 == len(found) else found.to(torch.long)
