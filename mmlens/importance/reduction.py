"""Importance scores of every token set of a row, reduced from a layer's activations as they arise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlens.importance.attention_weights import Heads, set_weights
from mmlens.importance.formulas import ATTENTION_SCORES, AttentionMode, min_max

# Elements of one slice: small enough for a CPU's cache, large enough to fill a GPU.
_SLICE = {"cpu": 1 << 18, "cuda": 1 << 26}


@dataclass(frozen=True, eq=False)
class TokenSets:
    """The token sets of one row, over its real tokens.

    Tokens that belong to the same sets form a class. Classes are disjoint, so counts and maxima of a
    set are put together from those of its classes, and each token is looked at once however many sets
    hold it.

    Attributes:
        member: which tokens each set has; every set has one.
        order: the tokens of some set, those of one class together.
        classes: tokens of each class, in that order.
        member_classes: which classes each set has.
    """

    member: Bool[Tensor, "set token"]
    order: Int[Tensor, " ordered"]
    classes: tuple[int, ...]
    member_classes: Bool[Tensor, "set class"]

    @classmethod
    def of(cls, member: Bool[Tensor, "set token"]) -> TokenSets:
        """From the sets' masks; a token of no set is left out of the order."""
        weights = 2 ** torch.arange(len(member), device=member.device)
        code = (member.long() * weights[:, None]).sum(0)
        order = code.argsort(stable=True)
        order = order[code[order] > 0]
        found, sizes = code[order].unique_consecutive(return_counts=True)
        has = (found[None] & weights[:, None]) > 0
        return cls(member, order, tuple(sizes.tolist()), has)


def row_scores(
    pre: Float[Tensor, "token neuron"],
    activation: Callable[[Tensor], Tensor],
    sets: TokenSets,
    heads: Heads | None,
    mode: AttentionMode,
    scores: Sequence[str],
) -> Float[Tensor, "score set neuron"]:
    """All scores of all sets of one row, min-max normalised, from one look at its activations.

    ``mean``, ``attn_k`` and ``attn_q`` of all sets are one matrix product, token weights times
    activations, since the sums of MINER's code over [query, key, neuron] are row and column sums of
    the attention (see :func:`mmlens.importance.formulas.token_set_scores`).

    Args:
        pre: pre-activations at the row's real tokens.
        activation: the activation function.
        sets: the row's token sets.
        heads: its attention; None where no attention score is asked.
        mode: see ``token_set_scores``.
        scores: which, in that order.
    """
    size = sets.member.sum(-1).float()
    linear = {"mean": sets.member / size[:, None]} if "mean" in scores else {}
    if heads is not None:
        linear |= dict(zip(ATTENTION_SCORES, set_weights(heads, sets.member, mode), strict=True))
    number, width = len(sets.member), pre.shape[-1]
    weights = [linear[one][:, sets.order] for one in linear]
    stacked = torch.cat(weights) if weights else size.new_zeros(0, len(sets.order))
    sums, positive, largest = _reduced(pre, activation, sets, stacked)
    found = dict(zip(linear, sums.view(-1, number, width), strict=True))
    if "prob" in scores:
        found["prob"] = sets.member_classes.float() @ positive / size[:, None]
    if "max" in scores:
        mine = sets.member_classes[..., None]
        found["max"] = torch.where(mine, largest, -torch.inf).amax(1)
    return min_max(torch.stack([found[score] for score in scores]))


def _reduced(
    pre: Float[Tensor, "token neuron"],
    activation: Callable[[Tensor], Tensor],
    sets: TokenSets,
    weights: Float[Tensor, "row ordered"],
) -> tuple[
    Float[Tensor, "row neuron"], Float[Tensor, "class neuron"], Float[Tensor, "class neuron"]
]:
    """Weighted sums over all tokens; counts above zero and maxima per class."""
    width, classes = pre.shape[-1], len(sets.classes)
    step = max(1, _SLICE.get(pre.device.type, _SLICE["cpu"]) // width)
    sums = weights.new_zeros(len(weights), width)
    positive = weights.new_zeros(classes, width)
    largest = weights.new_full((classes, width), -torch.inf)
    start = 0
    for one, tokens in enumerate(sets.classes):
        for first in range(start, start + tokens, step):
            here = slice(first, min(first + step, start + tokens))
            value = activation(pre.index_select(0, sets.order[here])).float()
            sums.addmm_(weights[:, here], value)
            positive[one] += (value > 0).sum(0)
            torch.maximum(largest[one], value.amax(0), out=largest[one])
        start += tokens
    return sums, positive, largest
