"""What the last token's attention reads, per layer: from rotated q and k, without any pattern.

Only one row of the attention is needed, so nothing of size tokens x tokens is formed and the forward
keeps its fused kernel. The mask is the one that Hugging Face hands to the layer: windows, prefixes and
padding are in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mmlens.errors import SpliceError
from mmlens.hooks import Hook
from mmlens.model.hooked_mllm import HookedMLLM

#: What is heard of each layer, in TransformerLens's terms.
POINTS = ("rot_q", "rot_k", "v")


@dataclass(frozen=True, eq=False)
class LastToken:
    """One layer's attention at the last token of every row.

    Attributes:
        weights: attention probabilities of the last token; 0 at padding and at what the mask forbids.
        values: v of every token.
        output: W_O of the layer.
    """

    weights: Float[Tensor, "batch head pos"]
    values: Float[Tensor, "batch pos group d_head"]
    output: Float[Tensor, "head d_head d_model"]


def last_weights(
    query: Float[Tensor, "batch head d_head"],
    keys: Float[Tensor, "batch pos group d_head"],
    mask: Bool[Tensor, "batch pos"] | Float[Tensor, "batch pos"],
    scale: float,
    softcap: float | None = None,
) -> Float[Tensor, "batch head pos"]:
    """Attention probabilities of one query per row: softmax over pos of scale x q k; float32 at least.

    Args:
        query: rotated query of the last token.
        keys: rotated keys, one head for each group of query heads.
        mask: of the query's row: true where it may attend, or what is added to the scores.
        scale: of the scores, usually d_head^-0.5.
        softcap: c of the cap c tanh(score / c), before the mask; None: no cap.
    """
    precise = torch.promote_types(query.dtype, torch.float32)
    q = query.to(precise).unflatten(1, (keys.shape[2], -1))
    scores = torch.einsum("bgrd,bpgd->bgrp", q, keys.to(precise)).flatten(1, 2) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    row = mask[:, None]
    scores = scores.masked_fill(~row, -torch.inf) if row.dtype == torch.bool else scores + row
    return scores.softmax(-1).nan_to_num(0.0)


def value_norms(last: LastToken) -> Float[Tensor, "batch pos"]:
    """|| sum_h A^h_{last,t} V^h_t W_O^h ||_2 of every token t (methods section 6, ours).

    What token t adds to the last token's attention output; the output's bias belongs to no token.
    Row by row, so that it takes the memory of one row's states.
    """
    heads = last.weights.shape[1]
    repeats = heads // last.values.shape[2]
    output = last.output.flatten(0, 1).to(last.weights.dtype)
    rows = []
    for weights, values in zip(last.weights, last.values, strict=True):
        v = values.to(weights.dtype).repeat_interleave(repeats, dim=1)
        rows.append(((weights.T[..., None] * v).flatten(1) @ output).norm(dim=-1))
    return torch.stack(rows)


def attention_mass(last: LastToken) -> Float[Tensor, "batch pos"]:
    """mean_h A^h_{last,t} of every token t (methods section 6, ours); sums to 1 over a row."""
    return last.weights.mean(1)


@contextmanager
def listening(
    model: HookedMLLM,
    last: Bool[Tensor, "batch pos"],
    layers: Sequence[int],
    heard: Callable[[int, LastToken], None],
) -> Iterator[list[Hook]]:
    """Hooks for one batch's forwards that call ``heard(layer, ...)`` as soon as a layer is known.

    Use them inside the context, with ``model.hooks(fwd_hooks=...)``; the forward may not use a cache.

    Args:
        model: a hooked model, of either backbone.
        last: true at one token of each row, the last (``batch.groups.mask("last")``).
        layers: decoder layers to listen to.
        heard: takes what each layer's attention reads; nothing of it is kept here.

    Raises:
        SpliceError: attention has sinks beside its keys, or something else that is not known here.
    """
    at = last.int().argmax(-1)
    decoder = model.adapter.decoder()
    ears = [_Ear(layer, decoder.layers[layer], at, model, heard) for layer in layers]
    handles = [ear.module.register_forward_pre_hook(ear.at_call, with_kwargs=True) for ear in ears]
    try:
        yield [
            (f"blocks.{ear.layer}.attn.hook_{point}", ear.take) for ear in ears for point in POINTS
        ]
    finally:
        for handle in handles:
            handle.remove()


@dataclass(eq=False)
class _Ear:
    """Collects what one layer's attention is computed of, and lets go of it at once."""

    layer: int
    module: nn.Module
    at: Int[Tensor, " batch"]
    model: HookedMLLM
    heard: Callable[[int, LastToken], None]
    mask: Tensor | None = None
    seen: dict[str, Tensor] = field(default_factory=dict)

    def at_call(self, _module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.mask = kwargs.get("attention_mask")
        self.seen.clear()

    def take(self, tensor: Tensor, hook: HookPoint) -> None:
        assert hook.name is not None
        point = hook.name.rpartition("hook_")[2]
        # Of the queries, one row: the rest would be kept for nothing.
        self.seen[point] = self._at_last(tensor) if point == "rot_q" else tensor
        if len(self.seen) == len(POINTS):
            self.heard(self.layer, self._last())
            self.seen.clear()
            self.mask = None

    def _at_last(self, tensor: Tensor) -> Tensor:
        at = self.at.to(tensor.device)
        return tensor[torch.arange(len(at), device=at.device), at]

    def _last(self) -> LastToken:
        attention: Any = self.module.self_attn
        if getattr(attention, "sinks", None) is not None:
            raise SpliceError(
                f"The attention of layer {self.layer} has sinks beside its keys, which the last "
                "token's attention does not know; leave contributions out for this model."
            )
        query, keys, values = (self.seen[point] for point in POINTS)
        if keys.shape[:3] != values.shape[:3]:
            raise SpliceError(
                f"Layer {self.layer}'s keys {tuple(keys.shape)} and values {tuple(values.shape)} are "
                "laid out differently: this version of TransformerLens is not known here."
            )
        scale = getattr(attention, "scaling", None) or query.shape[-1] ** -0.5
        cap = getattr(attention, "attn_logit_softcapping", None)
        output = self.model.backbone.blocks[self.layer].attn.W_O.detach().to(query.device)
        weights = last_weights(query, keys, self._row(keys), scale, cap)
        return LastToken(weights, values, output)

    def _row(self, keys: Tensor) -> Tensor:
        """The mask's row of the last query, [batch, pos]."""
        batch, length = keys.shape[:2]
        at = self.at.to(keys.device)
        if self.mask is None:
            return torch.arange(length, device=at.device) <= at[:, None]
        mask = self.mask.to(keys.device)
        if mask.dim() != 4 or mask.shape[-1] < length or mask.shape[-2] < length:
            raise SpliceError(
                f"Layer {self.layer} got an attention mask of shape {tuple(mask.shape)}; its last "
                "row is known of masks [batch, 1, query, key] alone: use the implementation 'sdpa'."
            )
        rows = mask[:, 0].expand(batch, -1, -1)
        return rows[torch.arange(batch, device=at.device), at, :length]
