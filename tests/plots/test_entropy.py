"""The histogram of entropies counts every neuron and marks its thresholds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmlens import plots
from tests.helpers.domain_frames import DOMAINS, make_selection


def test_entropy_histogram_counts_and_marks_its_thresholds() -> None:
    summary, _ = make_selection(DOMAINS)
    figure = plots.entropy_histogram(summary)
    known = np.isfinite(summary.entropy)
    passing, filtered = figure.data[0], figure.data[2]
    assert sum(passing.y) == (known & summary.passes).sum()
    assert sum(filtered.y) == (known & ~summary.passes).sum()
    low = summary.entropy[known & summary.passes] < np.asarray(passing.x)[30] - passing.width / 2
    assert sum(passing.y[:30]) == low.sum()
    assert f"tau = {summary.tau:.3g}" in passing.name
    assert f"{int(summary.passes.sum()):,}" in passing.name
    lines = {round(float(shape.x0), 9) for shape in figure.layout.shapes}
    assert lines == {round(summary.cut, 9), round(math.log(len(DOMAINS)), 9)}
    notes = " ".join(note.text for note in figure.layout.annotations)
    assert f"{summary.cut:.3f}" in notes
    assert f"ln {len(DOMAINS)}" in notes
    assert "7 never active" in figure.layout.title.subtitle.text
    assert figure.layout.barmode == "stack"


def test_entropy_histogram_without_a_selection_and_bad_input() -> None:
    summary, _ = make_selection(["a", "b"])
    none = plots.SelectionSummary(
        "language", ("a", "b"), summary.entropy, summary.passes, summary.tau, float("nan"), 0
    )
    assert len(plots.entropy_histogram(none).layout.shapes) == 1
    wrong = plots.SelectionSummary(
        "language", ("a", "b"), summary.entropy + 5, summary.passes, 0.5, 0.1, 3
    )
    with pytest.raises(ValueError, match="lie within 0 to 0.6931 nats"):
        plots.entropy_histogram(wrong)
    with pytest.raises(ValueError, match="equal shapes"):
        plots.entropy_histogram(
            plots.SelectionSummary(
                "m", ("a", "b"), np.zeros((2, 3)), np.ones((3, 2), bool), 0.0, 0.0, 0
            )
        )


def test_the_low_end_of_the_entropy_shows_the_selected_in_bins_of_their_own() -> None:
    summary, _ = make_selection(DOMAINS)
    figure = plots.entropy_histogram(summary)
    zoomed = figure.data[1]
    low, near = figure.layout.xaxis2.range
    inside = summary.entropy[np.isfinite(summary.entropy) & summary.passes]
    assert low <= inside.min() < summary.cut < near
    assert sum(zoomed.y) == ((inside >= low) & (inside <= near)).sum()
    assert len(zoomed.y) == 30
    assert zoomed.width == pytest.approx((near - low) / 30)
