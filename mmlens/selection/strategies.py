"""MINER's stage 4: modality-specific neurons from their importance (methods 3.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmlens.errors import StatisticsError
from mmlens.neurons import NeuronSet

Strategy = Literal["adaptive", "LA_MU", "LU_MA", "uniform", "random"]
#: L: layers, M: modalities; A: adaptive, one ranking over all of them; U: uniform, as many for each.
STRATEGIES: tuple[str, ...] = get_args(Strategy)
#: The one key that strategy ``random`` gives.
RANDOM = "random"


def select_neurons(
    importance: Float[Tensor, "modality layer neuron"],
    modalities: Sequence[str],
    ratio: float = 0.02,
    strategy: Strategy = "LA_MU",
    module: str = "language",
    seed: int = 0,
    *,
    replacement: bool = False,
    model_hash: str | None = None,
) -> dict[str, NeuronSet]:
    """Which neurons are specific to which modality.

    With M modalities, L layers, N neurons per layer and K = int(ratio x L x N):

        adaptive  the top K of sum_m W_m over all neurons; each goes to argmax_m W_m
        LA_MU     for every m the top K // M of W_m over all neurons (MINER's default)
        LU_MA     for every layer the top K // L of the table of (m, neuron) entries
        uniform   for every layer and m the top K // (M L) of W_m in the layer
        random    K neurons drawn uniformly, under the key ``random``; a control

    All but ``adaptive`` and ``random`` may give a neuron to several modalities, so that fewer than K
    are distinct; floor division takes its part. Of equal values the one that comes first wins: the
    smaller modality, layer, index, in that order (ours: the official code leaves ties to chance).

    Args:
        importance: W, such as :meth:`mmlens.importance.ImportanceScores.combine` gives.
        modalities: names of its first axis.
        ratio: share of the module's neurons, all modalities together.
        strategy: see above.
        module: whose neurons; goes into the sets.
        seed: of ``random``.
        replacement: ``random`` draws with replacement, as the official code does, so that fewer than
            K are distinct.
        model_hash: goes into the sets.

    Raises:
        StatisticsError: names or values that do not fit, an unknown strategy, or a ratio that selects
            nothing or more than there is.

    >>> w = torch.tensor([[[0.9, 0.1], [0.2, 0.0]], [[0.8, 0.3], [0.1, 0.7]]])
    >>> {m: list(s) for m, s in select_neurons(w, ["text", "image"], 0.5, "adaptive").items()}
    {'text': [(0, 0)], 'image': [(1, 1)]}
    >>> {m: list(s) for m, s in select_neurons(w, ["text", "image"], 0.5, "LA_MU").items()}
    {'text': [(0, 0)], 'image': [(0, 0)]}
    """
    count = _checked(importance, modalities, ratio, strategy)
    kinds, layers, width = importance.shape
    if strategy == "random":
        rng = np.random.default_rng(seed)
        drawn = rng.choice(layers * width, size=count, replace=replacement)
        pairs = np.stack(np.divmod(drawn, width), axis=1)
        return {RANDOM: NeuronSet(pairs, module, (layers, width), model_hash)}
    share = count // _shares(kinds, layers, strategy)
    entries = _entries(importance.detach().cpu(), share, strategy)
    return {
        name: NeuronSet(entries[entries[:, 0] == m, 1:], module, (layers, width), model_hash)
        for m, name in enumerate(modalities)
    }


def _entries(
    values: Float[Tensor, "modality layer neuron"], share: int, strategy: str
) -> Int[Tensor, "n 3"]:
    """(modality, layer, neuron) of the top ``share`` of each table that the strategy ranks alone."""
    kinds, layers, width = values.shape
    modality, layer = torch.arange(kinds)[:, None], torch.arange(layers)[:, None]
    if strategy == "adaptive":
        top = top_places(values.sum(0).flatten(), share)
        parts = (values.flatten(1)[:, top].argmax(0), top // width, top % width)
    elif strategy == "LA_MU":
        top = top_places(values.flatten(1), share)
        parts = (modality, top // width, top % width)
    elif strategy == "LU_MA":
        top = top_places(values.transpose(0, 1).flatten(1), share)
        parts = (top // width, layer, top % width)
    else:  # uniform
        top = top_places(values, share)
        parts = (modality[..., None], layer, top)
    return torch.stack([part.expand(top.shape) for part in parts], -1).reshape(-1, 3)


def smallest_ratio(modalities: int, layers: int, width: int, strategy: str) -> float:
    """The ratio from which a strategy selects a neuron for each of its shares."""
    return _shares(modalities, layers, strategy) / (layers * width)


def _shares(modalities: int, layers: int, strategy: str) -> int:
    """Among how many a strategy divides the neurons it may select."""
    shares = {"LA_MU": modalities, "LU_MA": layers, "uniform": modalities * layers}
    return shares.get(strategy, 1)


def top_places(values: Float[Tensor, "*row n"], count: int) -> Int[Tensor, "*row k"]:
    """Places of the largest values of each row; of equal ones the first."""
    return values.sort(descending=True, stable=True).indices[..., :count]


def _rounded_up(ratio: float) -> float:
    """To three digits, never down: a little more than the least selects what the least should."""
    step = 10.0 ** (2 - math.floor(math.log10(ratio)))
    return min(1.0, (math.floor(ratio * step) + 1) / step)


def _checked(
    importance: Float[Tensor, "modality layer neuron"],
    modalities: Sequence[str],
    ratio: float,
    strategy: str,
) -> int:
    kinds, layers, width = importance.shape
    if not kinds:
        raise StatisticsError("There is no modality to select neurons for: give at least one.")
    if len(modalities) != kinds or len(set(modalities)) != kinds:
        raise StatisticsError(
            f"The importance is of {kinds} modalities, and {len(modalities)} names were given "
            f"({', '.join(modalities)}); give one for each, all different."
        )
    if strategy not in STRATEGIES:
        raise StatisticsError(
            f"There is no strategy {strategy!r}; there are {', '.join(STRATEGIES)}."
        )
    if not bool(torch.isfinite(importance).all()):
        raise StatisticsError(
            "Some importance is not a finite number; such neurons cannot be ranked."
        )
    if not 0 < ratio <= 1:
        raise StatisticsError(
            f"ratio is a share of the neurons, above 0 and at most 1; {ratio} was given."
        )
    count = int(ratio * layers * width)
    share = _shares(kinds, layers, strategy)
    if count // share < 1:
        least = _rounded_up(smallest_ratio(kinds, layers, width, strategy))
        raise StatisticsError(
            f"A ratio of {ratio:g} selects nothing: it is {count} of {layers * width:,} neurons, which "
            f"{strategy} shares out to {share}; give at least {least:g}."
        )
    return count
