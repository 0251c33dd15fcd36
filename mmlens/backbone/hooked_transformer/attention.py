"""TransformerLens attention that computes in a Hugging Face decoder's place.

Inside a splice the rotary tables, the mask and the cache are those that Hugging Face hands to the
layer, so multimodal positions, prefix masks, sliding windows and generation are right by
construction. Outside, the attention is TransformerLens's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor
from transformer_lens.components.abstract_attention import AbstractAttention
from transformer_lens.components.attention import Attention
from transformer_lens.components.grouped_query_attention import GroupedQueryAttention

from mmlens.backbone.scores import capped_and_masked


@dataclass
class LayerCall:
    """What Hugging Face hands to one decoder layer.

    Attributes:
        cos, sin: rotary tables, [batch, pos, d_head], recombined over axes where M-RoPE has such.
        mask: [batch, 1, query, key], boolean (True: may attend) or additive; None: causal.
        cache: the Hugging Face cache, or None.
        layer: the layer's index in the cache.
    """

    cos: Float[Tensor, "#batch pos d_head"]
    sin: Float[Tensor, "#batch pos d_head"]
    mask: Tensor | None
    cache: Any | None
    layer: int


@dataclass
class SpliceContext:
    """Shared by a backbone's attention modules; holds a call only while its layer computes."""

    call: LayerCall | None = None


def rotate(
    x: Float[Tensor, "batch pos head d_head"],
    cos: Float[Tensor, "#batch pos d_head"],
    sin: Float[Tensor, "#batch pos d_head"],
) -> Float[Tensor, "batch pos head d_head"]:
    """Rotary position embedding on halves: x cos + (-x2, x1) sin (RoFormer, arXiv 2104.09864)."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return x * cos[:, :, None] + turned * sin[:, :, None]


def spliced_forward(
    self: AbstractAttention, query: Tensor, key: Tensor, value: Tensor, call: LayerCall
) -> Float[Tensor, "batch pos d_model"]:
    """Attention of one layer, through all of TransformerLens's hook points.

    ``hook_attn_scores`` and ``hook_pattern`` need the scores explicitly; when neither has
    hooks the fused kernel computes the same without ever holding heads x pos x pos.
    """
    q, k, v = self.calculate_qkv_matrices(query, key, value)
    q = self.hook_rot_q(rotate(q, call.cos, call.sin))
    k = self.hook_rot_k(rotate(k, call.cos, call.sin))
    q, k, v = (rearrange(x, "batch pos head d_head -> batch head pos d_head") for x in (q, k, v))
    if call.cache is not None:
        k, v = call.cache.update(k, v, call.layer)
    causal = call.mask is None and q.shape[2] > 1
    if self.hook_attn_scores.has_hooks() or self.hook_pattern.has_hooks():
        z = _explicit(self, q, k, v, call.mask, causal)
    else:
        mask = call.mask[..., : k.shape[2]] if call.mask is not None else None
        grouped = k.shape[1] != q.shape[1]
        if grouped and mask is not None:
            # The grouped kernels take no mask; expanding a view is what Hugging Face does here.
            k, v, grouped = _expanded(self, k), _expanded(self, v), False
        z = F.scaled_dot_product_attention(
            q, k, v, mask, is_causal=causal, scale=1.0 / self.attn_scale, enable_gqa=grouped
        )
    z = rearrange(z, "batch head pos d_head -> batch pos head d_head")
    return _output(self, self.hook_z(z))


def _explicit(
    self: AbstractAttention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool
) -> Float[Tensor, "batch head query d_head"]:
    k, v = _expanded(self, k), _expanded(self, v)
    scores = q @ k.transpose(-1, -2) / self.attn_scale
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device)
        mask = mask.tril(scores.shape[-1] - scores.shape[-2])
    scores = capped_and_masked(scores, None, None if mask is None else mask[..., : k.shape[2]])
    pattern = F.softmax(self.hook_attn_scores(scores).float(), dim=-1)
    # A row that may attend to nothing (padding) gives 0/0; TransformerLens makes it zero too.
    pattern = self.hook_pattern(pattern.nan_to_num(0.0))
    return pattern.to(v.dtype) @ v


def _expanded(self: AbstractAttention, x: Tensor) -> Tensor:
    repeats = self.cfg.n_heads // x.shape[1]
    if repeats == 1:
        return x
    return repeat(x, "batch group pos d_head -> batch (group n) pos d_head", n=repeats)


def _output(
    self: AbstractAttention, z: Float[Tensor, "batch pos head d_head"]
) -> Float[Tensor, "batch pos d_model"]:
    if self.cfg.use_attn_result:
        result = torch.einsum("bphd,hdm->bphm", z, self.W_O)
        return self.hook_result(result).sum(2) + self.b_O
    # W_O is a view of Hugging Face's [d_model, heads x d_head] matrix: no copy is made here.
    weight = rearrange(self.W_O, "head d_head d_model -> d_model (head d_head)")
    return F.linear(
        rearrange(z, "batch pos head d_head -> batch pos (head d_head)"), weight, self.b_O
    )


class _Spliced(AbstractAttention):
    """Attention that follows the splice context while it is set."""

    splice: SpliceContext

    def forward(
        self, query_input: Any, key_input: Any, value_input: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """As TransformerLens's; inside a splice, :func:`spliced_forward`."""
        if (call := self.splice.call) is None:
            return super().forward(query_input, key_input, value_input, *args, **kwargs)
        return spliced_forward(self, query_input, key_input, value_input, call)


class SplicedAttention(_Spliced, Attention):
    """TransformerLens's ``Attention``, spliced."""


class SplicedGroupedQueryAttention(_Spliced, GroupedQueryAttention):
    """TransformerLens's ``GroupedQueryAttention``, spliced."""


def spliced_attention(plain: AbstractAttention, context: SpliceContext) -> AbstractAttention:
    """A spliced twin of a freshly built attention module, weights not yet loaded."""
    kind = (
        SplicedGroupedQueryAttention
        if isinstance(plain, GroupedQueryAttention)
        else SplicedAttention
    )
    twin = kind(plain.cfg, plain.attn_type, plain.layer_id)
    twin.splice = context
    return cast(AbstractAttention, twin)
