"""Curves of convergence are means over draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mmlens import plots
from mmlens.importance.correlation import correlate_scores

SCORES = ("prob", "mean", "max", "attn_k", "attn_q")


GROUPS = ("text", "special", "image", "video")


def matrix(scores: int = 5, groups: int = 4, layers: int = 3, neurons: int = 40) -> torch.Tensor:
    return torch.rand(
        scores, groups, layers, neurons, generator=torch.Generator().manual_seed(1)
    ).double()


def convergence(**changes: Any) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    rows = [
        {
            "n_samples": n,
            "group": group,
            "comparison": kind,
            "jaccard": rng.random(),
            "correlation": rng.uniform(-0.2, 1),
            "chance": 0.01 * n,
            "draw": draw,
        }
        for kind in ("full", "halves")
        for group in (*GROUPS, "all")
        for n in (40, 10, 20)
        for draw in range(2)
    ]
    return pd.DataFrame(rows).assign(**changes)


def test_convergence_draws_means_over_draws_in_order() -> None:
    frame = convergence()
    figure = plots.convergence_curves(frame)
    for j, kind in enumerate(("full", "halves")):
        for measure, axis in (("jaccard", 1), ("correlation", 3)):
            place = f"y{axis + j}" if axis + j > 1 else "y"
            for group in (*GROUPS, "all"):
                name = "all together" if group == "all" else group
                (line,) = [t for t in figure.data if t.name == name and t.yaxis == place]
                own = frame[(frame.comparison == kind) & (frame.group == group)]
                wanted = own.groupby("n_samples")[measure].mean()
                assert list(line.x) == [10, 20, 40]
                np.testing.assert_allclose(line.y, wanted)
    chance = [t for t in figure.data if str(t.name).startswith("by chance")]
    assert [list(t.y) for t in chance] == [pytest.approx([0.1, 0.2, 0.4])] * 2
    lowest = frame.correlation.min()
    assert figure.layout.yaxis3.range[0] < lowest


def test_convergence_survives_missing_numbers_and_one_comparison() -> None:
    frame = convergence(correlation=math.nan).drop(columns="chance")
    frame = frame[(frame.comparison == "full") & (frame.group == "text")]
    figure = plots.convergence_curves(frame)
    assert [t.name for t in figure.data] == ["text", "text"]
    assert list(figure.data[1].y) == [None] * 3
    with pytest.raises(ValueError, match="'thirds' was given"):
        plots.convergence_curves(convergence(comparison="thirds"))


@pytest.mark.parametrize(
    ("draw", "make", "column"),
    [
        (plots.convergence_curves, convergence, "jaccard"),
        (
            plots.score_correlations,
            lambda: correlate_scores(matrix(), SCORES, GROUPS),
            "spearman",
        ),
    ],
)
def test_missing_columns_and_empty_frames_are_named(draw: Any, make: Any, column: str) -> None:
    frame = make()
    with pytest.raises(ValueError, match=f"lacks \\['{column}'\\]"):
        draw(frame.drop(columns=column))
    with pytest.raises(ValueError, match="is empty"):
        draw(frame.iloc[:0])
