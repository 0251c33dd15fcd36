"""Two disjoint halves of the data, each in parts that double it: what stability and convergence compare.

Statistics of disjoint parts add exactly, so one pass over the parts gives every budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import chain
from operator import add
from typing import Any

import numpy as np

from mmlens.data.samples import Sample
from mmlens.errors import SampleError


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


def sum_of(halves: Sequence[Sequence[Any]]) -> Any:
    """The statistics (or importance scores) of all parts together; exact for counts."""
    return reduce(add, (part for half in halves for part in half))


def _merged(parts: Sequence[Sequence[int]], kept: Sequence[int]) -> list[list[int]]:
    """Parts up to each kept one, joined; what lies after the last goes to it."""
    ends = [*kept[:-1], len(parts) - 1]
    starts = [0, *(end + 1 for end in ends[:-1])]
    return [list(chain(*parts[start : end + 1])) for start, end in zip(starts, ends, strict=True)]
