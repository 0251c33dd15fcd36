"""Figures of effects carry the numbers of their table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmlens import plots
from tests.helpers.domain_frames import DOMAINS, make_effects


@pytest.fixture(scope="module")
def effects() -> pd.DataFrame:
    return make_effects(DOMAINS)


def traces(figure: Any, name: str) -> list[Any]:
    return [trace for trace in figure.data if trace.name == name]


def test_effects_are_points_and_filled_where_zero_is_excluded(effects: pd.DataFrame) -> None:
    figure = plots.effects_against_controls(effects, "matched", fraction=0.02)
    rows = effects[(effects["control"] == "matched") & (effects["fraction"] == 0.02)]
    rows = rows[rows["evaluated"].isin(["own", "others", "all"])]
    (mask,), (control,), (gap,) = (traces(figure, n) for n in ("mask", "control", "difference"))
    assert list(mask.x) == pytest.approx(list(100 * rows["drop"]))
    assert list(control.x) == pytest.approx(list(100 * rows["control_drop"]))
    assert list(gap.x) == pytest.approx(list(100 * rows["difference"]))
    high = np.asarray(gap.x) + np.asarray(gap.error_x.array)
    low = np.asarray(gap.x) - np.asarray(gap.error_x.arrayminus)
    assert list(high) == pytest.approx(list(100 * rows["high"]))
    assert list(low) == pytest.approx(list(100 * rows["low"]))
    filled = [symbol == "circle" for symbol in gap.marker.symbol]
    assert filled == [
        bool(lo > 0 or hi < 0) for lo, hi in zip(rows["low"], rows["high"], strict=True)
    ]
    assert any(filled)
    assert not all(filled)
    assert len(figure.layout.yaxis.ticktext) == len(rows)


def test_a_menu_shows_one_fraction_at_a_time(effects: pd.DataFrame) -> None:
    figure = plots.effects_against_controls(effects)
    (menu,) = figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == [
        "fraction 1%",
        "fraction 2%",
        "fraction 5%",
        "fraction 10%",
    ]
    for i, button in enumerate(menu.buttons):
        change, which = button.args
        assert [figure.data[t].name for t in which] == ["control", "mask", "difference"] * 4
        assert [t for t, on in zip(which, change["visible"], strict=True) if on] == [
            3 * i,
            3 * i + 1,
            3 * i + 2,
        ]
    assert [t.visible for t in figure.data[:6]] == [True] * 3 + [False] * 3


def test_an_interval_that_touches_zero_is_hollow() -> None:
    frame = make_effects(["a", "b"], matrix=False, fractions=(0.01,))
    frame.loc[frame["evaluated"] == "own", ["low", "high"]] = [0.0, 0.02]
    gap = traces(plots.effects_against_controls(frame), "difference")[0]
    assert gap.marker.symbol[0] == "circle-open"


def test_matrix_stars_and_values(effects: pd.DataFrame) -> None:
    figure = plots.effect_matrix(effects, "random", 0.05)
    heat = figure.data[0]
    rows = effects[(effects["control"] == "random") & (effects["fraction"] == 0.05)]
    cells = {(r.mask, r.evaluated): r for r in rows.itertuples()}
    for i, mask in enumerate(heat.y):
        for j, domain in enumerate(heat.x):
            cell: Any = cells[mask, domain]
            assert heat.z[i][j] == pytest.approx(100 * cell.difference)
            assert heat.text[i][j].endswith("*") == (cell.low > 0 or cell.high < 0)
    assert heat.zmin == -heat.zmax


def test_matrix_needs_named_domains() -> None:
    with pytest.raises(ValueError, match="no full matrix"):
        plots.effect_matrix(make_effects(DOMAINS, matrix=False))
