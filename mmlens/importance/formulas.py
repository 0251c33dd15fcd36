"""MINER's importance scores of a set of tokens, as formulas (methods 3.2); the readable reference.

Everything streamed is checked against :func:`token_set_scores`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.errors import SampleError

#: The scores, in the order of MINER's weight vectors.
SCORES = ("prob", "mean", "max", "attn_k", "attn_q")
#: Those of them that read attention.
ATTENTION_SCORES = ("attn_k", "attn_q")
AttentionMode = Literal["paper", "causal"]


def token_set_scores(
    activations: Float[Tensor, "token neuron"],
    attention: Float[Tensor, "token token"] | None,
    attention_mode: AttentionMode,
    scores: Sequence[str] = SCORES,
) -> Float[Tensor, "score neuron"]:
    """Importance of every neuron for one set of tokens of one sample, in one layer.

    With X = ``activations`` [n, N] and A = ``attention`` [query, key] restricted to the set:

        prob_j   = (1/n) #{t: X_tj > 0}
        mean_j   = (1/n) sum_t X_tj
        max_j    = max_t X_tj
        attn_k_j = sum_q w_q X_qj,   w_q = sum_k K_qk     (tokens weigh by the attention they pay)
        attn_q_j = sum_k u_k X_kj,   u_k = sum_q Q_qk     (... by the attention they receive)

    ``paper``: A is softmax(q k / sqrt d) without a causal mask, and is passed through a second
    softmax, over queries for K and over keys for Q (official code). ``causal``: A is the model's own
    attention, and K = Q = A: neither a second softmax nor renormalised, since rows that sum to 1 would
    make attn_k equal ``mean`` (methods 3.10). Each score is then min-max normalised over the neurons.

    The two sums of the official code, over [query, key, neuron], are row and column sums of the
    weights times X; that identity is used here and tested.

    Args:
        activations: outputs of the activation function at the set's tokens.
        attention: probabilities averaged over heads, its rows queries, restricted to the set; None
            where no attention score is asked.
        attention_mode: what ``attention`` is and how it weighs; it has no default.
        scores: which to give, in that order.

    Returns:
        Scores in [0, 1]; a score that is the same for all neurons is 0.

    Raises:
        SampleError: no token, an unknown score or mode, or an attention score without attention.

    >>> x = torch.tensor([[1.0, -1.0, 0.0], [3.0, -1.0, 2.0]])
    >>> token_set_scores(x, None, "causal", ["prob", "mean"]).tolist()
    [[1.0, 0.0, 0.5], [1.0, 0.0, 0.6666666865348816]]
    """
    check_scores(scores, attention_mode)
    if not len(activations):
        raise SampleError("Importance scores are of at least one token; the set is empty.")
    weights = {}
    if asked := [score for score in scores if score in ATTENTION_SCORES]:
        if attention is None:
            raise SampleError(
                f"The score {asked[0]!r} reads attention, and none was given: give the attention of the "
                "set's tokens, or ask for prob, mean and max alone."
            )
        weights = token_weights(attention.to(activations.dtype), attention_mode)
    plain = {
        "prob": lambda: (activations > 0).to(activations.dtype).mean(0),
        "mean": lambda: activations.mean(0),
        "max": lambda: activations.amax(0),
        "attn_k": lambda: weights["attn_k"] @ activations,
        "attn_q": lambda: weights["attn_q"] @ activations,
    }
    return min_max(torch.stack([plain[score]() for score in scores]))


def token_weights(
    attention: Float[Tensor, "token token"], mode: AttentionMode
) -> dict[str, Float[Tensor, " token"]]:
    """How much each token of a set weighs in ``attn_k`` (as a query) and ``attn_q`` (as a key)."""
    if mode == "causal":
        return {"attn_k": attention.sum(1), "attn_q": attention.sum(0)}
    return {"attn_k": attention.softmax(0).sum(1), "attn_q": attention.softmax(1).sum(0)}


def min_max(scores: Float[Tensor, "*score neuron"]) -> Float[Tensor, "*score neuron"]:
    """(s - min) / (max - min) over neurons; 0 where all neurons have the same score, never NaN.

    >>> min_max(torch.tensor([[2.0, 4.0, 3.0], [7.0, 7.0, 7.0]])).tolist()
    [[0.0, 1.0, 0.5], [0.0, 0.0, 0.0]]
    """
    low, high = scores.amin(-1, keepdim=True), scores.amax(-1, keepdim=True)
    span = high - low
    return torch.where(span > 0, (scores - low) / span.clamp(min=torch.finfo(span.dtype).tiny), 0.0)


def check_scores(scores: Sequence[str], mode: str) -> None:
    """Raise SampleError for no score, an unknown or repeated one, or an unknown attention mode."""
    if not scores or len(set(scores)) != len(scores) or (set(scores) - set(SCORES)):
        raise SampleError(
            f"Scores are some of {', '.join(SCORES)}, each once; given: {', '.join(scores) or 'none'}."
        )
    if mode not in get_args(AttentionMode):
        raise SampleError(
            f"attention_mode is 'paper' (the official code's, non-causal with a second softmax) or "
            f"'causal' (the model's own attention); {mode!r} was given."
        )
