"""Figures of two methods carry the numbers of their tables, recomputed here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmlens import plots
from tests.helpers.cost_figures import named, rows_match, ticks
from tests.helpers.masking_frames import DATA


def method_frame() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    rows = []
    for asked in (*DATA, "all"):
        for method in ("entropy", "importance", "matched random"):
            gap = 0.06 * rng.standard_normal()
            bare = method == "matched random"
            rows.append(
                {
                    "method": method,
                    "evaluated": asked,
                    "n_neurons": 3536,
                    "n_questions": 400,
                    "baseline": 0.7,
                    "masked": 0.68 - gap,
                    "control_mean": math.nan if bare else 0.68,
                    "difference": math.nan if bare else gap,
                    "low": math.nan if bare else gap - 0.03,
                    "high": math.nan if bare else gap + 0.03,
                }
            )
    return pd.DataFrame(rows)


def pair_frame() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    rows = [
        {
            "method_a": a,
            "method_b": b,
            "evaluated": asked,
            "difference": (gap := 0.04 * rng.standard_normal()),
            "low": gap - 0.03,
            "high": gap + 0.03,
        }
        for asked in ("all", *DATA)
        for a, b in (("entropy", "importance"), ("importance", "matched random"))
    ]
    return pd.DataFrame(rows)


def overlap_frame() -> pd.DataFrame:
    rows = [
        {
            "domain": domain,
            "modality": modality,
            "n_domain": 120,
            "n_modality": 90,
            "both": i * j,
            "expected": 120 * 90 / 3000 if modality != "audio" else 0.0,
        }
        for i, domain in enumerate(("medical", "driving"))
        for j, modality in enumerate(("text", "image", "audio"))
    ]
    return pd.DataFrame(rows)


def test_methods_stand_by_data_set() -> None:
    frame = method_frame()
    figure = plots.methods_comparison(frame)
    wanted = frame.assign(
        drop=frame.baseline - frame.masked, control_drop=frame.baseline - frame.control_mean
    )
    rows_match(figure, wanted)
    texts = ticks(figure, named(figure, "mask")[0].y)
    assert texts[:3] == ["entropy (3,536)", "importance (3,536)", "matched random (3,536)"]
    assert sum(note.text == "no control" for note in figure.layout.annotations) == 5


def test_pairs_of_methods_carry_their_intervals_with_all_last() -> None:
    frame = pair_frame()
    figure = plots.method_pairs(frame)
    (gap,) = named(figure, "difference")
    wanted = pd.concat([frame[2:], frame[:2]])
    np.testing.assert_allclose(gap.x, 100 * wanted.difference)
    clear = (wanted.low > 0) | (wanted.high < 0)
    assert [symbol == "circle" for symbol in gap.marker.symbol] == clear.tolist()
    assert clear.any()
    assert not clear.all()
    assert figure.layout.yaxis.ticktext[gap.y[0]] == "entropy - importance"


def test_overlap_of_methods_stands_beside_chance() -> None:
    figure = plots.method_overlap(overlap_frame())
    (heat,) = figure.data
    assert heat.z[1][1] == pytest.approx(1 / 3.6)
    assert [line[2] for line in heat.z] == [None, None]
    assert heat.text[1][1] == "1<br>(3.6)"
    assert list(figure.layout.yaxis.ticktext) == ["medical (120)", "driving (120)"]


@pytest.mark.parametrize(
    ("draw", "frame", "column"),
    [
        (plots.methods_comparison, method_frame(), "masked"),
        (plots.method_pairs, pair_frame(), "low"),
        (plots.method_overlap, overlap_frame(), "expected"),
    ],
)
def test_comparisons_name_missing_columns_and_empty_frames(
    draw: Any, frame: pd.DataFrame, column: str
) -> None:
    with pytest.raises(ValueError, match=f"lacks \\['{column}'\\]"):
        draw(frame.drop(columns=column))
    with pytest.raises(ValueError, match="is empty"):
        draw(frame.iloc[:0])
