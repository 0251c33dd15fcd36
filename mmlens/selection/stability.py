"""How stable domain neurons are against the token budget (MM-10 in the notes on methods).

MMNeuron's published code selects on the first 35 to 58 pictures of a domain (methods 2.9, B3). Here
the samples are split into two halves, each half into parts that double the data read so far.
Statistics of disjoint parts add exactly, so one pass over the data gives every budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import accumulate, chain
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmlens.ablation.masks import ALL
from mmlens.data.samples import Sample
from mmlens.entropy import Selection, select
from mmlens.errors import SampleError
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.neurons import NeuronSet
from mmlens.selection.overlap import chance_jaccard, jaccard
from mmlens.statistics.neuron_statistics import NeuronStatistics
from mmlens.streaming.collect import collect
from mmlens.streaming.plan import check_failures

COMPARISONS = ("full", "halves")


def split(
    samples: Sequence[Sample], *, by: str = "domain", levels: int = 6, seed: int = 0
) -> list[list[list[Sample]]]:
    """Two disjoint halves of the samples of every domain, each in parts that double it.

    The first j + 1 of a half's ``levels`` parts hold a share of 2^-(levels - 1 - j) of its samples of
    each domain, at least one sample. Samples are drawn without replacement, domain by domain.

    Args:
        samples: what statistics will be collected on.
        by: the field whose values are the domains.
        levels: parts per half, fewer where a domain has too few samples for that many.
        seed: of the draw.

    Returns:
        [half][part] -> samples; every sample is in one part (of an odd number, one is in the first).

    Raises:
        SampleError: a domain has fewer than two samples, or levels below one.

    >>> texts = [Sample(str(i), "?", domain="d") for i in range(16)]
    >>> [[len(part) for part in half] for half in split(texts, levels=3)]
    [[2, 2, 4], [2, 2, 4]]
    """
    if levels < 1:
        raise SampleError(f"levels must be at least 1, {levels} was given.")
    positions: dict[str, list[int]] = {}
    for position, sample in enumerate(samples):
        positions.setdefault(str(sample.get(by)), []).append(position)
    rng = np.random.default_rng(seed)
    halves: list[list[list[int]]] = [[[] for _ in range(levels)] for _ in range(2)]
    for value in sorted(positions):
        if len(positions[value]) < 2:
            raise SampleError(
                f"{by} {value!r} has one sample only; two halves need at least two. Leave it out, or "
                "give it more samples."
            )
        drawn = rng.permutation(positions[value])
        for half in (0, 1):
            mine = drawn[half::2]
            ends = [max(1, round(len(mine) / 2 ** (levels - 1 - j))) for j in range(levels)]
            for part, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
                halves[half][part] += mine[start:end].tolist()
    # A part that no sample fell to would repeat the one before it.
    kept = [j for j in range(levels) if all(half[j] for half in halves)]
    merged = [_merged(half, kept) for half in halves]
    return [[[samples[i] for i in sorted(part)] for part in half] for half in merged]


def collect_parts(
    model: HookedMLLM,
    halves: Sequence[Sequence[Sequence[Sample]]],
    folder: Path | None = None,
    *,
    max_failures: float = 0.05,
    collector: Callable[..., Any] = collect,
    **options: Any,
) -> list[list[Any]]:
    """:func:`mmlens.collect` on every part of :func:`split`: one pass over the data in all.

    The sum of all parts (``sum_of``) is the statistics of all samples; counts are those of a single
    collection up to signs within rounding of zero, since other samples run together.

    Args:
        model: a hooked model.
        halves: [half][part] -> samples.
        folder: keep each part's statistics there, as ``half0-part0.safetensors``; a second call goes
            on from them. Each file has the size of the whole statistics.
        max_failures: share of all samples that may be left out for unreadable media.
        collector: what collects; :func:`mmlens.importance.collect` gives importance scores.
        options: passed to it: modules, groups, by, template, ...

    Raises:
        TooManyFailuresError: more samples unreadable than the cap allows.
        Others: as :func:`mmlens.collect`.
    """
    total = sum(len(part) for half in halves for part in half)
    skipped: dict[str, str] = {}
    found: list[list[Any]] = []
    for h, half in enumerate(halves):
        found.append([])
        for p, part in enumerate(half):
            path = None if folder is None else folder / f"half{h}-part{p}.safetensors"
            # The cap is on all samples: of a small part, one unreadable picture is a large share.
            one = collector(model, part, checkpoint=path, max_failures=1.0, **options)
            skipped.update(one.skipped)
            check_failures(skipped, total, max_failures)
            found[-1].append(one)
    return found


def sum_of(halves: Sequence[Sequence[Any]]) -> Any:
    """The statistics (or importance scores) of all parts together; exact for counts."""
    return reduce(add, (part for half in halves for part in half))


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
        halves: [half][part] -> statistics, as :func:`collect_parts` gives them.
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
        found: Selection = select(
            counts,
            tokens,
            domains,
            fraction=fraction,
            quantile=quantile,
            module=module,
            model_hash=statistics.model_hash,
            among=among,
        )
        amounts = dict(zip(domains, map(float, tokens), strict=True))
        return {**found.sets, ALL: found.union}, {**amounts, ALL: float(tokens.double().mean())}

    reference, _ = selected(sum_of(halves))
    budgets = [[selected(one) for one in accumulate(half, lambda a, b: a + b)] for half in halves]
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


def _merged(parts: Sequence[Sequence[int]], kept: Sequence[int]) -> list[list[int]]:
    """Parts up to each kept one, joined; what lies behind the last goes to it."""
    ends = [*kept[:-1], len(parts) - 1]
    starts = [0, *(end + 1 for end in ends[:-1])]
    return [list(chain(*parts[start : end + 1])) for start, end in zip(starts, ends, strict=True)]
