"""What importance scores need of attention: row and column sums over token sets, in blocks of queries.

The attention matrix is never held: memory is linear in the number of tokens, and the forward pass
itself stays on the fused kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from mmlens.backbone.scores import capped_and_masked
from mmlens.importance.formulas import AttentionMode
from mmlens.model.attention_reader import LayerAttention

# Elements of one block [head, query, key]: small enough for a CPU's cache, enough to fill a GPU.
_BLOCK = {"cpu": 1 << 21, "cuda": 1 << 27}
# A matrix [query, key] of up to as many elements is held between the two passes of mode "paper", which
# then computes it once (4,096 tokens: 64 MB); a longer prompt computes its blocks twice.
_HELD = 1 << 24
#: Queries, and their attention to the first keys.
Block = tuple[slice, Float[Tensor, "query key"]]


@dataclass(frozen=True, eq=False)
class Heads:
    """What one row's attention in one layer is computed from.

    Attributes:
        queries: rotated, [head, token, d_head].
        keys: rotated; heads share them in groups of neighbours, [key_head, token, d_head].
        scale: of the products, before the soft cap.
        soft_cap: scores s become cap tanh(s / cap); None: they do not.
        mask: None: each token attends to itself and those before it; else boolean (true: may
            attend) or added to the scores, [1 or head, token, token].
    """

    queries: Float[Tensor, "head token d_head"]
    keys: Float[Tensor, "key_head token d_head"]
    scale: float
    soft_cap: float | None = None
    mask: Tensor | None = None

    @classmethod
    def of_row(cls, attention: LayerAttention, row: int, real: Bool[Tensor, " pos"]) -> Heads:
        """The attention of one row among its real (not padding) tokens."""
        here = contiguous(real)
        mask = attention.mask
        # A mask of two dimensions is of padding alone, which is left out anyhow.
        if mask is not None and mask.dim() != 4:
            mask = None
        if mask is not None:
            mask = mask[row if mask.shape[0] > 1 else 0][..., : len(real)]
            mask = mask[:, here][:, :, here]
        return cls(
            attention.queries[row].transpose(0, 1)[:, here],
            attention.keys[row].transpose(0, 1)[:, here],
            attention.scale,
            attention.soft_cap,
            mask,
        )

    def blocks(self, mode: AttentionMode) -> Iterator[Block]:
        """(queries, their attention to the first keys), probabilities averaged over heads.

        In mode ``causal`` without a mask the keys after the block's last query are left out: their
        attention is zero. In mode ``paper`` nothing is masked.
        """
        heads, tokens, _ = self.queries.shape
        device = self.queries.device.type
        step = max(1, _BLOCK.get(device, _BLOCK["cpu"]) // (heads * tokens))
        keys = self.keys.float().transpose(-1, -2)
        causal = mode == "causal" and self.mask is None
        for start in range(0, tokens, step):
            stop = min(start + step, tokens)
            rows = slice(start, stop)
            seen = stop if causal else tokens
            mask = None
            if causal:
                mask = torch.ones(stop - start, seen, dtype=torch.bool, device=keys.device)
                mask = mask.tril(start)
            elif mode == "causal":
                assert self.mask is not None
                mask = self.mask[:, rows, :seen]
                # Scores are float32, whatever the model's precision is.
                mask = mask if mask.dtype == torch.bool else mask.float()
            scores = self._products(rows, keys[..., :seen])
            yield rows, _mean_over_heads(capped_and_masked(scores, self.soft_cap, mask))

    def _products(
        self, rows: slice, keys: Float[Tensor, "key_head d_head key"]
    ) -> Float[Tensor, "head query key"]:
        groups = keys.shape[0]
        queries = self.queries[:, rows].float() * self.scale
        # The heads that share a key are neighbours, so that they are one product.
        queries = rearrange(queries, "(group head) query d -> group (head query) d", group=groups)
        return rearrange(
            queries @ keys,
            "group (head query) key -> (group head) query key",
            query=rows.stop - rows.start,
        )


def set_weights(
    heads: Heads, sets: Bool[Tensor, "set token"], mode: AttentionMode
) -> Float[Tensor, "2 set token"]:
    """The token weights of ``attn_k`` and ``attn_q`` for several sets at once; 0 outside each set.

    As :func:`mmlens.importance.formulas.token_weights` of each set's part of the attention. Mode
    ``paper`` goes through the blocks twice, since a softmax over queries needs its denominators first.
    No maximum has to be taken off, since probabilities are at most 1.
    """
    member = sets.float()
    if mode == "causal":
        return torch.stack(_sums(heads.blocks(mode), member, member)) * member
    tokens = sets.shape[1]
    held = list(_exponentials(heads)) if tokens**2 <= _HELD else None
    # Per set: rows_q = sum_k exp A_qk, columns_k = sum_q exp A_qk, over its own tokens.
    rows, columns = _sums(held or _exponentials(heads), member, member)
    by_columns, by_rows = member / columns.clamp(min=1.0), member / rows.clamp(min=1.0)
    return torch.stack(_sums(held or _exponentials(heads), by_columns, by_rows)) * member


def _exponentials(heads: Heads) -> Iterator[Block]:
    return ((rows, block.exp_()) for rows, block in heads.blocks("paper"))


def _sums(
    blocks: Iterable[Block],
    key_weights: Float[Tensor, "set token"],
    query_weights: Float[Tensor, "set token"],
) -> tuple[Float[Tensor, "set token"], Float[Tensor, "set token"]]:
    """sum_k B_qk key_weights_k and sum_q B_qk query_weights_q, of a matrix B in blocks of queries."""
    over_keys, over_queries = torch.empty_like(key_weights), torch.zeros_like(query_weights)
    for rows, block in blocks:
        seen = block.shape[1]
        over_keys[:, rows] = key_weights[:, :seen] @ block.T
        over_queries[:, :seen] += query_weights[:, rows] @ block
    return over_keys, over_queries


def _mean_over_heads(scores: Float[Tensor, "head query key"]) -> Float[Tensor, "query key"]:
    # A query that may attend to nothing gives 0/0, as in the model; it attends to nothing.
    return scores.softmax(-1).mean(0).nan_to_num_(0.0)


def contiguous(real: Bool[Tensor, " pos"]) -> slice | Tensor:
    """The true positions: a slice where they are neighbours, so that indexing copies nothing."""
    found = real.nonzero()[:, 0]
    if not len(found):
        return slice(0, 0)
    first, last = int(found[0]), int(found[-1])
    return slice(first, last + 1) if last - first + 1 == len(found) else found.to(torch.long)
