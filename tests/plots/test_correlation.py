"""Correlations of scores are scipy's, and stand where they belong in the maps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmlens import plots
from mmlens.errors import StatisticsError
from mmlens.importance.correlation import correlate_scores

SCORES = ("prob", "mean", "max", "attn_k", "attn_q")


GROUPS = ("text", "special", "image", "video")


def matrix(scores: int = 5, groups: int = 4, layers: int = 3, neurons: int = 40) -> torch.Tensor:
    return torch.rand(
        scores, groups, layers, neurons, generator=torch.Generator().manual_seed(1)
    ).double()


def heats(figure: Any) -> list[Any]:
    return [trace for trace in figure.data if trace.type == "heatmap"]


def drawn(trace: Any) -> np.ndarray:
    return np.array([[np.nan if v is None else v for v in line] for line in trace.z], dtype=float)


@given(
    seed=st.integers(0, 2**16),
    layers=st.integers(1, 3),
    neurons=st.integers(2, 9),
    levels=st.integers(2, 5),
)
def test_correlations_are_scipys_in_ties_too(
    seed: int, layers: int, neurons: int, levels: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, levels, size=(3, 2, layers, neurons)) * 1e-3
    frame = correlate_scores(torch.from_numpy(values), SCORES[:3], GROUPS[:2])
    assert len(frame) == 2 * 9
    for row in frame.itertuples():
        g = GROUPS.index(str(row.group))
        a = values[SCORES.index(str(row.score_a)), g].ravel()
        b = values[SCORES.index(str(row.score_b)), g].ravel()
        if np.ptp(a) == 0 or np.ptp(b) == 0:
            assert math.isnan(row.pearson)  # type: ignore[arg-type]
            assert math.isnan(row.spearman)  # type: ignore[arg-type]
            assert "the same for every neuron" in str(row.note)
            continue
        assert row.pearson == pytest.approx(scipy.stats.pearsonr(a, b)[0], abs=1e-9)
        assert row.spearman == pytest.approx(scipy.stats.spearmanr(a, b)[0], abs=1e-9)
        assert row.note == ""


def test_a_score_that_is_not_finite_has_no_correlation_and_the_others_keep_theirs() -> None:
    values = matrix(3, 1)
    whole = correlate_scores(values, SCORES[:3], ["text"]).set_index(["score_a", "score_b"])
    values[1, 0, 0, 0] = float("nan")
    frame = correlate_scores(values, SCORES[:3], ["text"]).set_index(["score_a", "score_b"])
    assert frame.loc[("mean", "prob"), "note"] == "mean is not finite for some neurons"
    assert frame["pearson"].isna().sum() == 5
    kept = ("max", "prob")
    assert frame.loc[kept, "spearman"] == whole.loc[kept, "spearman"]


def test_correlations_of_tiny_scores_do_not_vanish() -> None:
    values = matrix(2, 1) * 1e-200
    frame = correlate_scores(values, SCORES[:2], ["text"])
    wanted = scipy.stats.pearsonr(*(matrix(2, 1)[:, 0].flatten(1).numpy()))[0]
    assert frame["pearson"][1] == pytest.approx(wanted, abs=1e-9)


def test_names_that_do_not_fit_are_refused() -> None:
    with pytest.raises(StatisticsError, match="axis of 5"):
        correlate_scores(matrix(), SCORES[:4], GROUPS)
    with pytest.raises(StatisticsError, match="name of its own"):
        correlate_scores(matrix(2), ("mean", "mean"), GROUPS)
    with pytest.raises(StatisticsError, match="two neurons or more"):
        correlate_scores(matrix(neurons=1, layers=1), SCORES, GROUPS)


def test_pearson_stands_below_the_diagonal_and_spearman_above() -> None:
    values = matrix()
    values[3] = values[1] + 1e-6 * values[2]
    values[4, 2] = 0.25
    frame = correlate_scores(values, SCORES, GROUPS)
    figure = plots.score_correlations(frame)
    table = frame.set_index(["group", "score_a", "score_b"])
    assert [trace.name for trace in heats(figure)] == list(GROUPS)
    for trace in heats(figure):
        z = drawn(trace)
        for i, a in enumerate(SCORES):
            assert math.isnan(z[i, i])
            for j, b in enumerate(SCORES[:i]):
                cell = table.loc[(trace.name, a, b)]
                assert z[i, j] == pytest.approx(cell["pearson"], nan_ok=True)
                assert z[j, i] == pytest.approx(cell["spearman"], nan_ok=True)
    image = heats(figure)[2]
    assert image.text[3][1] == "1.0"
    assert image.text[4][0] == ""
    assert "same for every neuron" in image.customdata[4][0]
    (dashes,) = [trace for trace in figure.data if trace.name == "not defined"]
    wanted = {(i, 4) for i in range(4)} | {(4, i) for i in range(4)}
    assert set(zip(dashes.x, dashes.y, strict=True)) == wanted
