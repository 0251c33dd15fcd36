"""How much each token group contributes to the last token, per layer, and what a mask changes of it.

MINER's figure 5b shows such a score before and after masking on 100 samples, without its formula
(methods 3.8). The two here are OUR definitions (methods section 6): attention mass, and the norm of
what the value vectors add through the output projection. The third of those notes, a saliency by
gradients, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    rng = np.random.default_rng(seed)
    often = drawn_counts(rng, len(values), draws)
    sums, counts = often @ np.where(there, values, 0.0), often @ there.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(there, values, 0.0).sum(0) / there.sum(0)
        drawn = np.where(counts > 0, sums / counts, np.nan)
    low, high = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    known = ~np.isnan(mean)
    if known.any():
        low[known], high[known] = interval(drawn[:, known], confidence)
    return mean, low, high


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
    groups = [g for g in _groups(rows) if any(_any(row, g) for row in rows)]
    found = []
    for name, table in tables.items():
        first = next(iter(table.values()))
        paired = [one for one in table if one in untouched] if name != baseline else []
        for measure, group in product(first["shares"], groups):
            values = _curves(list(table.values()), measure, group)
            columns = mean_interval(values, draws=draws, seed=seed)
            delta = (np.full(values.shape[1], np.nan),) * 3
            if paired:
                after = _curves([table[one] for one in paired], measure, group)
                before = _curves([untouched[one] for one in paired], measure, group)
                delta = mean_interval(after - before, draws=draws, seed=seed)
            for i, layer in enumerate(first["attention_layers"]):
                cells = [float(column[i]) for column in (*columns, *delta)]
                found.append((name, measure, group, layer, *cells, len(values), len(paired)))
    return pd.DataFrame(found, columns=list(CONTRIBUTION_COLUMNS))


def _groups(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(g for row in rows for one in row["shares"].values() for g in one))


def _any(row: Mapping[str, Any], group: str) -> bool:
    return any(any(v or 0.0 for v in one.get(group, ())) for one in row["shares"].values())


def _curves(
    rows: Sequence[Mapping[str, Any]], measure: str, group: str
) -> Float[np.ndarray, "sample layer"]:
    return np.array(
        [[np.nan if v is None else v for v in r["shares"][measure][group]] for r in rows], float
    )
