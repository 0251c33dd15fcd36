"""From products of queries and keys to attention scores: the soft cap, then the mask."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def capped_and_masked(
    scores: Float[Tensor, "*batch key"], soft_cap: float | None, mask: Tensor | None
) -> Float[Tensor, "*batch key"]:
    """Scores as a kernel's softmax takes them.

    Args:
        scores: scaled products of queries and keys.
        soft_cap: scores s become cap tanh(s / cap), before the mask; None: they do not.
        mask: broadcast over the scores: boolean (true: may attend), or added to them.
    """
    if soft_cap is not None:
        scores = soft_cap * torch.tanh(scores / soft_cap)
    if mask is None:
        return scores
    return scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
