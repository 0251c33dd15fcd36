"""Reading figures of costs: traces by name, rows of both panels, names of lines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def named(figure: Any, name: str) -> list[Any]:
    return [trace for trace in figure.data if trace.name == name]


def rows_match(figure: Any, wanted: pd.DataFrame) -> None:
    """The two panels carry exactly these rows, in this order."""
    (mask,), (control,), (gap,) = (named(figure, n) for n in ("mask", "control", "difference"))
    for trace, column in ((mask, "drop"), (control, "control_drop"), (gap, "difference")):
        np.testing.assert_allclose(np.asarray(trace.x, float), 100 * wanted[column].to_numpy(float))
    ends = np.asarray(gap.x, float) + np.asarray(gap.error_x.array, float)
    np.testing.assert_allclose(ends, 100 * wanted["high"])
    ends = np.asarray(gap.x, float) - np.asarray(gap.error_x.arrayminus, float)
    np.testing.assert_allclose(ends, 100 * wanted["low"])
    clear = (wanted["low"] > 0) | (wanted["high"] < 0)
    assert [symbol == "circle" for symbol in gap.marker.symbol] == clear.tolist()
    assert list(mask.y) == list(gap.y) == sorted(mask.y)
    low, high = figure.layout.xaxis.range
    known = 100 * wanted[["drop", "control_drop", "low", "high"]].to_numpy(float)
    assert low < min(0, np.nanmin(known))
    assert high > np.nanmax(known)


def ticks(figure: Any, ys: list[int]) -> list[str]:
    return [figure.layout.yaxis.ticktext[y] for y in ys]
