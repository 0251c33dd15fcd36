"""Accuracies are means over seeds, with their spread."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mmlens import plots
from tests.helpers.domain_frames import DOMAINS, make_accuracy


def traces(figure: Any, name: str) -> list[Any]:
    return [trace for trace in figure.data if trace.name == name]


def test_accuracy_means_and_spread_over_seeds() -> None:
    frame = make_accuracy(DOMAINS)
    figure = plots.accuracy_bars(frame, 0.05)
    picked = frame[np.isclose(frame["fraction"], 0.05) & (frame["kind"] == "matched")]
    (bar,) = [t for t in traces(figure, "matched")]
    for domain, height, spread in zip(bar.x, bar.y, bar.error_y.array, strict=True):
        values = picked[(picked["mask"] == domain) & (picked["evaluated"] == domain)]["accuracy"]
        assert len(values) == 3
        assert height == pytest.approx(100 * values.mean())
        assert spread == pytest.approx(100 * values.std(ddof=1))
    (plain,) = traces(figure, "none")
    wanted = frame[frame["kind"] == "none"]["accuracy"]
    assert list(plain.y) == pytest.approx(list(100 * wanted))
    assert list(figure.layout.yaxis.range) == [0, 105]


def test_scores_beyond_0_and_1_are_inside_the_figure() -> None:
    frame = make_accuracy(DOMAINS)
    # CIDEr passes 1, MINER's WRR falls below 0.
    frame["accuracy"] = 20 * frame["accuracy"] - 17.4
    low, high = plots.accuracy_bars(frame, 0.05).layout.yaxis.range
    means = 100 * plots.accuracy_summary(frame, 0.05)["mean"]
    assert low < means.min() < 0 and 105 < means.max() < high
