"""How much each token group contributes to the last token, per layer, and what a mask changes of it.

MINER's figure 5b shows such a score before and after masking on 100 samples, without its formula
(methods 3.8). The two here are OUR definitions (methods section 6): attention mass, and the norm of
what the value vectors add through the output projection. The third of those notes, a saliency by
gradients, is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from torch import Tensor

from mmlens.errors import SampleError
from mmlens.plots.frames import CONTRIBUTION_COLUMNS
from mmlens.states.last_token import LastToken, attention_mass, value_norms
from mmlens.statistics.bootstrap import drawn_counts, interval

#: Measure -> contribution of every token.
MEASURES = {"attention": attention_mass, "value_norm": value_norms}
#: The last token itself is a group of its own: what it takes from itself is from no modality.
LAST = "last"


def group_shares(
    amounts: Float[Tensor, "batch pos"], groups: Bool[Tensor, "group batch pos"]
) -> Float[Tensor, "batch group"]:
    """Share of each group in the sum over all groups, per row; the shares of a row sum to 1.

    NaN in a row where the groups contribute nothing at all.
    """
    sums = (amounts[None] * groups.to(amounts.device)).sum(-1).T
    return sums / sums.sum(-1, keepdim=True)


def split_last(
    groups: Mapping[str, Bool[Tensor, "batch pos"]], last: Bool[Tensor, "batch pos"]
) -> dict[str, Bool[Tensor, "batch pos"]]:
    """Groups that partition the tokens, with the last token of each row as a group of its own."""
    return {**{name: mask & ~last for name, mask in groups.items()}, LAST: last}


def shares_of(
    last: LastToken, groups: Bool[Tensor, "group batch pos"]
) -> dict[str, Float[Tensor, "batch group"]]:
    """Measure -> :func:`group_shares` of one layer."""
    return {name: group_shares(measure(last), groups) for name, measure in MEASURES.items()}


def mean_interval(
    values: Float[np.ndarray, "sample cell"],
    *,
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """Mean over samples, and its percentile bootstrap interval over draws of samples.

    NaN is no value, and a draw without any value does not count.

    Raises:
        SampleError: no sample.
    """
    if not len(values):
        raise SampleError("A mean over samples needs at least one sample.")
    there = ~np.isnan(values)
    often = drawn_counts(np.random.default_rng(seed), len(values), draws)
    with np.errstate(invalid="ignore"):  # 0 / 0 of a draw without any value
        drawn = (often @ np.where(there, values, 0.0)) / (often @ there.astype(float))
    mean, bounds = mean_over_samples(values), np.full((2, values.shape[1]), np.nan)
    if (known := there.any(0)).any():
        bounds[:, known] = interval(drawn[:, known], confidence)
    return mean, bounds[0], bounds[1]


def mean_over_samples(values: Float[np.ndarray, "sample ..."]) -> Float[np.ndarray, ...]:
    """Mean over samples, NaN left out; NaN where nothing is left."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0.0).sum(0) / there.sum(0)


def contribution_table(
    rows: Sequence[Mapping[str, Any]], baseline: str | None, *, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Mean share of each group per condition, measure and layer, and its change against one condition.

    ``delta`` is the mean over samples of (share under the condition - share under ``baseline`` in the
    same sample), with its bootstrap interval; NaN in the baseline's own rows. A group that a sample
    lacks contributes nothing there: its share is 0.

    Args:
        rows: of one sample and condition each: ``setting``, ``id``, ``attention_layers``, and ``shares``:
            measure -> group -> a share per layer.
        baseline: the untouched condition; None: no delta.
        draws, seed: of the bootstrap.

    Returns:
        Columns :data:`mmlens.plots.frames.CONTRIBUTION_COLUMNS`; ``n_paired`` samples are behind the delta.
    """
    tables: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        tables.setdefault(row["setting"], {})[row["id"]] = row
    untouched = tables.get(baseline, {}) if baseline is not None else {}
    groups = _contributing(rows)
    found = []
    for name, table in tables.items():
        first = next(iter(table.values()))
        paired = [one for one in table if one in untouched] if name != baseline else []
        for measure, group in product(first["shares"], groups):
            shares = _curves(table.values(), measure, group)
            means = mean_interval(shares, draws=draws, seed=seed)
            delta = (np.full(shares.shape[1], np.nan),) * 3
            if paired:
                after = _curves([table[one] for one in paired], measure, group)
                before = _curves([untouched[one] for one in paired], measure, group)
                delta = mean_interval(after - before, draws=draws, seed=seed)
            numbers = np.stack([*means, *delta], axis=1).tolist()
            for layer, values in zip(first["attention_layers"], numbers, strict=True):
                found.append((name, measure, group, layer, *values, len(table), len(paired)))
    return pd.DataFrame(found, columns=list(CONTRIBUTION_COLUMNS))


def _contributing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The groups in order of appearance, less those that contribute nothing to any row."""
    some: dict[str, bool] = {}
    for row in rows:
        for curves in row["shares"].values():
            for group, curve in curves.items():
                some[group] = some.get(group, False) or any(curve)
    return [group for group, contributes in some.items() if contributes]


def _curves(
    rows: Iterable[Mapping[str, Any]], measure: str, group: str
) -> Float[np.ndarray, "sample layer"]:
    return np.array([row["shares"][measure][group] for row in rows], float)
