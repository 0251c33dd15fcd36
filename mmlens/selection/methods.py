"""Two ways to modality-specific neurons at equal budget: by entropy and by importance (ours).

MMNeuron's entropy asks how unevenly a neuron is active over domains; here the token groups of the prompt
are the domains. MINER's importance asks how strongly it serves each group. Both are given as many
neurons per modality, and their sets are compared: what both find, and what one of them alone finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmlens.entropy import activation_probability, select
from mmlens.errors import StatisticsError
from mmlens.neurons import NeuronSet
from mmlens.selection.strategies import top_places

#: Names of the two methods, as tables and figures have them.
ENTROPY, IMPORTANCE = "entropy", "importance"


def entropy_ranked(
    n_positive: Int[Tensor, "layer neuron modality"],
    n_tokens: Int[Tensor, " modality"],
    modalities: Sequence[str],
    budget: int,
    *,
    quantile: float = 0.95,
    module: str = "language",
    model_hash: str | None = None,
) -> dict[str, NeuronSet]:
    """The neurons of lowest entropy over token groups, of each modality at most ``budget``.

    MMNeuron's filter and order (:func:`mmlens.entropy.select`, methods 2.4) with one label per neuron
    instead of several: a neuron goes to the modality on whose tokens it is most often above zero, if
    that probability is above the quantile of all. Of equal entropies the smaller (layer, index) wins.

    Args:
        n_positive: counts of activations above zero, per token group.
        n_tokens: tokens of each group.
        modalities: the groups.
        budget: neurons per modality at most; fewer where fewer pass the filter.
        quantile, module, model_hash: as in ``select``.

    Raises:
        StatisticsError: a group without tokens, names that do not fit, or a budget below 1.
    """
    if budget < 1:
        raise StatisticsError(
            f"The budget is neurons per modality, at least 1; {budget} was given."
        )
    found = select(
        n_positive,
        n_tokens,
        modalities,
        fraction=1.0,
        quantile=quantile,
        module=module,
        model_hash=model_hash,
    )
    strongest = activation_probability(n_positive, n_tokens).argmax(-1)
    sets = {}
    for m, modality in enumerate(modalities):
        mine = found.sets[modality].mask() & (strongest == m)
        entropy = torch.where(mine, found.entropy.round(decimals=12), torch.inf).flatten()
        order = entropy.argsort(stable=True)[: min(budget, int(mine.sum()))]
        pairs = torch.stack([order // mine.shape[1], order % mine.shape[1]], 1)
        sets[modality] = NeuronSet(pairs, module, (mine.shape[0], mine.shape[1]), model_hash)
    return sets


def most_important(
    importance: Float[Tensor, "modality layer neuron"],
    modalities: Sequence[str],
    budgets: Mapping[str, int],
    *,
    module: str = "language",
    model_hash: str | None = None,
) -> dict[str, NeuronSet]:
    """Each modality's most important neurons, as many as its budget: LA_MU with a budget per modality.

    Args:
        importance: W_m, as :meth:`mmlens.importance.ImportanceScores.combine` gives it.
        modalities: names of its first axis.
        budgets: modality -> neurons.
        module, model_hash: go into the sets.
    """
    _, layers, width = importance.shape
    sets = {}
    for m, modality in enumerate(modalities):
        chosen = top_places(importance[m].flatten(), budgets[modality])
        pairs = torch.stack([chosen // width, chosen % width], 1)
        sets[modality] = NeuronSet(pairs, module, (layers, width), model_hash)
    return sets


def parts_of_both(entropy: NeuronSet, importance: NeuronSet) -> dict[str, NeuronSet]:
    """What both methods find, and what one alone finds; parts without a neuron are left out."""
    parts = {
        ENTROPY: entropy,
        IMPORTANCE: importance,
        "both methods": entropy & importance,
        "entropy alone": entropy - importance,
        "importance alone": importance - entropy,
    }
    return {name: one for name, one in parts.items() if len(one)}
