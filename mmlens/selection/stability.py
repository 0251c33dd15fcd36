"""How stable domain neurons are against the token budget (MM-10 in the notes on methods).

MMNeuron's published code selects on the first 35 to 58 pictures of a domain (methods 2.9, B3). Here
the samples are split into two halves, each half into parts that double the data read so far
(:mod:`mmlens.data.halves`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import pandas as pd

from mmlens.data.halves import sum_of
from mmlens.entropy import select
from mmlens.neurons import ALL, NeuronSet
from mmlens.selection.overlap import chance_jaccard, jaccard
from mmlens.statistics.neuron_statistics import NeuronStatistics


def stability(
    halves: Sequence[Sequence[NeuronStatistics]],
    domains: Sequence[str],
    *,
    module: str = "language",
    group: str | None = None,
    fraction: float = 0.01,
    quantile: float = 0.95,
    among: NeuronSet | None = None,
) -> pd.DataFrame:
    """How alike the sets found on part of the data are to those of all data, and to each other.

    For each budget, the first j + 1 parts of a half: ``full`` compares the set they give with the one
    of all data (which contain them, so this ends high by itself); ``halves`` compares the sets of both
    halves, which share no sample. ``chance`` is the Jaccard index of random sets of these sizes.

    Args:
        halves: [half][part] -> statistics, as :func:`mmlens.streaming.collect.collect_parts` gives them.
        domains: the domains, in the order of the selection.
        module, group: what is selected in; default group: the module's first.
        fraction, quantile, among: as in :func:`mmlens.entropy.select`.

    Returns:
        A row per domain (and ``all`` for the union) and comparison: module, fraction, domain,
        comparison, half (0 or 1; -1 for ``halves``), part, tokens (of the domain, mean of both halves
        for ``halves``; mean over domains for ``all``), n_neurons, n_reference, jaccard (NaN where both
        sets are empty), chance.

    Raises:
        StatisticsError: an unknown module, group or domain, or a part without a domain's tokens.
    """

    def selected(statistics: NeuronStatistics) -> tuple[dict[str, NeuronSet], dict[str, float]]:
        counts, tokens = statistics.counts(module, group, domains)
        found = select(
            counts,
            tokens,
            domains,
            fraction=fraction,
            quantile=quantile,
            module=module,
            model_hash=statistics.model_hash,
            among=among,
        )
        amounts = dict(zip(domains, tokens.double().tolist(), strict=True))
        return {**found.sets, ALL: found.union}, {**amounts, ALL: float(tokens.double().mean())}

    reference, _ = selected(sum_of(halves))
    budgets = [[selected(one) for one in accumulate(half)] for half in halves]
    rows = []
    for part, both in enumerate(zip(*budgets, strict=True)):
        pairs = [("full", half, sets, reference, n) for half, (sets, n) in enumerate(both)]
        (first, n0), (second, n1) = both
        pairs.append(("halves", -1, first, second, {d: (n0[d] + n1[d]) / 2 for d in n0}))
        for comparison, half, a, b, amount in pairs:
            rows += [
                {
                    "module": module,
                    "fraction": fraction,
                    "domain": domain,
                    "comparison": comparison,
                    "half": half,
                    "part": part,
                    "tokens": amount[domain],
                    "n_neurons": len(a[domain]),
                    "n_reference": len(b[domain]),
                    "jaccard": jaccard(a[domain], b[domain]),
                    "chance": chance_jaccard(a[domain], b[domain]),
                }
                for domain in (*domains, ALL)
            ]
    return pd.DataFrame(rows)
