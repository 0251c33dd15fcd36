"""What the last token's attention reads, per layer: from rotated q and k, without any pattern.

Only one row of the attention is needed, so nothing of size tokens x tokens is formed and the forward
keeps its fused kernel. The mask is the one that Hugging Face hands to the layer: windows, prefixes and
padding are in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlens.backbone.scores import capped_and_masked
from mmlens.errors import SpliceError
from mmlens.hooks import Hook
from mmlens.model.attention_reader import AttentionReader, LayerAttention
from mmlens.model.hooked_mllm import HookedMLLM


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
    return capped_and_masked(scores, softcap, mask[:, None]).softmax(-1).nan_to_num(0.0)


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
    read: Callable[[int, LastToken], None],
) -> Iterator[list[Hook]]:
    """Hooks for one batch's forwards that call ``read(layer, ...)`` as soon as a layer is known.

    Use them inside the context, with ``model.hooks(fwd_hooks=...)``; the forward may not use a cache.

    Args:
        model: a hooked model, of either backbone.
        last: true at one token of each row, the last (``batch.groups.mask("last")``).
        layers: decoder layers to listen to.
        read: takes what each layer's attention reads; nothing of it is kept here.

    Raises:
        UnsupportedModelError: the attention of a layer cannot be read.
        SpliceError: attention has sinks beside its keys, or something else that is not known here.
    """
    at = last.int().argmax(-1)

    def reduce(layer: int, attention: LayerAttention) -> None:
        output = model.backbone.blocks[layer].attn.W_O.detach()
        read(layer, last_token(attention, at, output))

    reader = AttentionReader(model, reduce, layers, values=True)
    with reader.masks():
        yield reader.hooks()


def last_token(
    attention: LayerAttention,
    at: Int[Tensor, " batch"],
    output: Float[Tensor, "head d_head d_model"],
) -> LastToken:
    """One layer's attention at one token of every row.

    Args:
        attention: of the layer, values too.
        at: the token.
        output: W_O of the layer.

    Raises:
        SpliceError: a mask whose rows are not known.
    """
    assert attention.values is not None
    queries, at = attention.queries, at.to(attention.queries.device)
    weights = last_weights(
        queries[torch.arange(len(at), device=at.device), at],
        attention.keys,
        _mask_row(attention, at),
        attention.scale,
        attention.soft_cap,
    )
    return LastToken(weights, attention.values, output.to(queries.device))


def _mask_row(attention: LayerAttention, at: Int[Tensor, " batch"]) -> Tensor:
    """The mask's row of the last query, [batch, pos]."""
    batch, length = attention.keys.shape[:2]
    if attention.mask is None:
        return torch.arange(length, device=at.device) <= at[:, None]
    mask = attention.mask.to(at.device)
    if mask.dim() != 4 or mask.shape[-1] < length or mask.shape[-2] < length:
        raise SpliceError(
            f"A layer got an attention mask of shape {tuple(mask.shape)}; the last token's row is known "
            "of masks [batch, 1, query, key] alone: use the implementation 'sdpa'."
        )
    rows = mask[:, 0].expand(batch, -1, -1)
    return rows[torch.arange(batch, device=at.device), at, :length]
