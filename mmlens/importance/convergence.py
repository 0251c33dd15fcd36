"""How many samples importance needs: the matrix and the sets it gives, as samples are added (MI-3).

MINER's code keeps snapshots at 10 to 10,000 samples. Here, as for :mod:`mmlens.selection.stability`, samples are
split into two halves of parts that double, whose scores add exactly: one pass gives every number.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from mmlens.data.halves import sum_of
from mmlens.importance.scores import ImportanceScores, Weights
from mmlens.neurons import NeuronSet
from mmlens.selection.overlap import chance_jaccard, jaccard
from mmlens.selection.strategies import Strategy, select_neurons


def convergence(
    halves: Sequence[Sequence[ImportanceScores]],
    groups: Sequence[str],
    *,
    weights: Weights = "paper",
    ratio: float = 0.02,
    strategy: Strategy = "LA_MU",
) -> pd.DataFrame:
    """How alike importance on few samples is to that on all, and to that on as many others.

    ``full`` compares the first j + 1 parts of a half with all samples (which contain them, so this ends
    high by itself); ``halves`` compares both halves, which share no sample.

    Args:
        halves: [half][part] -> scores, as :func:`mmlens.streaming.collect.collect_parts` gives them.
        groups: the token sets that neurons are selected for.
        weights: of the scores.
        ratio, strategy: of :func:`mmlens.selection.select_neurons`.

    Returns:
        A row per group and comparison: group, comparison, half (-1 for ``halves``), part, n_samples
        (that have the group; mean of both halves for ``halves``), jaccard of the selected sets, chance
        (that of random sets of these sizes), correlation (Pearson, of the combined importance over all
        neurons).

        Parts so small that a group does not occur in them yet have no row.

    Raises:
        StatisticsError: a group that no sample has, weights that do not fit.
    """

    def found(scores: ImportanceScores) -> tuple[dict[str, NeuronSet], Any, dict[str, int]]:
        combined = scores.combine(weights, groups)
        sets = select_neurons(combined, groups, ratio, strategy, scores.module)
        number = {g: int(scores.samples[:, scores.groups.index(g)].sum()) for g in groups}
        return sets, combined, number

    whole = found(sum_of(halves))
    grown = [list(accumulate(half, lambda a, b: a + b)) for half in halves]
    rows = []
    for part, scores in enumerate(zip(*grown, strict=True)):
        if any(set(groups) - set(one.present()) for one in scores):
            continue  # so few samples that a group does not occur yet
        both = [found(one) for one in scores]
        pairs = [("full", half, one, whole) for half, one in enumerate(both)]
        pairs.append(("halves", -1, both[0], both[1]))
        for comparison, half, a, b in pairs:
            for m, group in enumerate(groups):
                mean = np.mean([one[2][group] for one in (both if half < 0 else [a])])
                rows.append(
                    {
                        "group": group,
                        "comparison": comparison,
                        "half": half,
                        "part": part,
                        "n_samples": float(mean),
                        "jaccard": jaccard(a[0][group], b[0][group]),
                        "chance": chance_jaccard(a[0][group], b[0][group]),
                        "correlation": correlation(a[1][m], b[1][m]),
                    }
                )
    return pd.DataFrame(rows)


def correlation(a: Float[Tensor, "layer neuron"], b: Float[Tensor, "layer neuron"]) -> float:
    """Pearson's, over all neurons; NaN where one of them is constant."""
    x, y = (one.double().flatten().numpy() for one in (a, b))
    if not (x.std() and y.std()):
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])
