"""How far importance scores rank the same neurons (MI-2 in the notes on methods).

MINER's published code softmaxes attention probabilities once more, so that its two attention scores
weight all tokens almost alike and become the mean score (methods 3.2, M1): this table shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from mmlens.errors import StatisticsError


def correlate_scores(
    matrix: Float[Tensor, "score group layer neuron"],
    scores: Sequence[str],
    groups: Sequence[str],
) -> pd.DataFrame:
    """Pearson and Spearman correlation of every two scores over all (layer, neuron), per group.

    Pearson's r = sum (a - mean a)(b - mean b) / sqrt(sum (a - mean a)^2 sum (b - mean b)^2); Spearman's
    is Pearson's of the ranks, where equal values share the mean of their ranks. Layers are pooled:
    scores are min-max normalised per layer before they are averaged (methods 3.2), so layers are
    comparable. The paper has no such table; the choice of both measures is ours.

    Args:
        matrix: importance of every neuron, as ``ImportanceScores.matrix()`` gives it.
        scores: names of the first axis, ``importance.SCORES`` for example.
        groups: names of the second axis.

    Returns:
        A row per group and ordered pair of scores, a score with itself too. Columns: group, score_a,
        score_b, pearson, spearman (in [-1, 1]), note. A score that is the same for every neuron, or not
        finite for some, has no correlation: both are NaN there, and the note says why.

    Raises:
        StatisticsError: names that do not fit the axes or occur twice, or fewer than two neurons.
    """
    for axis, names, size in (
        ("score", scores, matrix.shape[0]),
        ("group", groups, matrix.shape[1]),
    ):
        if len(names) != size or len(set(names)) != len(names):
            raise StatisticsError(
                f"The {axis} names {list(names)} were given for an axis of {size}: "
                "every place needs one name of its own."
            )
    if matrix.shape[2] * matrix.shape[3] < 2:
        raise StatisticsError(
            f"A correlation needs two neurons or more; the matrix has {tuple(matrix.shape)} = "
            "(score, group, layer, neuron)."
        )
    rows = []
    for g, group in enumerate(groups):
        values = matrix[:, g].flatten(1).double().cpu().numpy()
        notes = [_defect(one, score) for one, score in zip(values, scores, strict=True)]
        usable = np.array([not note for note in notes])
        pearson = _correlations(values, usable)
        ranks = np.stack([pd.Series(one).rank().to_numpy(dtype=float) for one in values])
        spearman = _correlations(ranks, usable)
        for (i, a), (j, b) in product(enumerate(scores), repeat=2):
            why = dict.fromkeys(note for note in (notes[i], notes[j]) if note)
            rows.append(
                {
                    "group": group,
                    "score_a": a,
                    "score_b": b,
                    "pearson": pearson[i, j],
                    "spearman": spearman[i, j],
                    "note": "; ".join(why),
                }
            )
    return pd.DataFrame(rows)


def _defect(values: npt.NDArray[np.float64], score: str) -> str:
    """Why a score has no correlation; empty where it has one."""
    if not np.isfinite(values).all():
        return f"{score} is not finite for some neurons"
    return f"{score} is the same for every neuron" if values.min() == values.max() else ""


def _correlations(
    values: npt.NDArray[np.float64], usable: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Pearson's r of every two rows; NaN for rows that are not usable."""
    found = np.full((len(values), len(values)), np.nan)
    chosen = values[usable]
    centred = chosen - chosen.mean(axis=1, keepdims=True)
    # Scaled by the largest first: squares of tiny scores would vanish.
    centred /= np.abs(centred).max(axis=1, keepdims=True)
    unit = centred / np.sqrt((centred**2).sum(axis=1, keepdims=True))
    found[np.ix_(usable, usable)] = np.clip(unit @ unit.T, -1.0, 1.0)
    return found
