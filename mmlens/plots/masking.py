"""Figures of masking modality-specific neurons (MINER): what it costs, beside the controls.

Part of :mod:`mmlens.plots`, which offers them by name. Each is drawn from the masking table
(:data:`MASKING_COLUMNS`): a row per setting, evaluated data set and control. Where a figure shows
one value of a column (one strategy, one ratio, ...) it is an argument; without it the only value
there is, or methods.md's default among several, is drawn, and the subtitle says which."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from mmlens.plots.cost_rows import cost_rows, rows_height
from mmlens.plots.frames import ordered
from mmlens.plots.masking_frames import (
    TREATMENTS,
    against,
    choose,
    control_text,
    masking_rows,
    setting_text,
)
from mmlens.plots.numbers import span
from mmlens.plots.style import finish, styles_of


def masking_effects(
    masking: pd.DataFrame,
    control: str = "matched",
    *,
    mined: str | None = None,
    strategy: str | None = None,
    weights: str | None = None,
    ratio: float | None = None,
    treatment: str | None = None,
    modalities: Sequence[str] | None = None,
    evaluated: Sequence[str] | None = None,
) -> go.Figure:
    """What masking each modality's neurons costs on each data set, against the control.

    Left: drop in accuracy under the mask, and mean drop under the control with its standard deviation
    over its sets. Right: mask minus control with its 95% interval, filled where it excludes 0, or
    "no control". Percentage points; one setting. ``modalities`` and ``evaluated`` give the order.
    ValueError for a missing column, an empty frame, or a value or control that is not there.
    """
    rows = against(masking_rows(masking), control)
    rows = choose(
        rows, mined=mined, strategy=strategy, weights=weights, ratio=ratio, treatment=treatment
    )
    order, asked = ordered(rows, "modality", modalities), ordered(rows, "evaluated", evaluated)
    cells = {(row["modality"], row["evaluated"]): row for row in rows}
    drawn = [
        row | {"owner": _modality(m), "inner": "all data sets" if e == "all" else e, "mask": m}
        for m in order
        for e in asked
        if (row := cells.get((m, e)))
    ]
    styles = styles_of(modalities or order)
    figure = cost_rows(drawn, [styles[row["mask"]].colour for row in drawn], control)
    return finish(
        figure,
        "What masking a modality's neurons costs, by data set",
        f"{setting_text(rows, ['modality'])};<br>{span([r['n_questions'] for r in rows])} questions; "
        f"{control_text(rows, control)}",
        height=rows_height(drawn),
    )


def treatments_figure(
    masking: pd.DataFrame,
    control: str = "matched",
    *,
    mined: str | None = None,
    strategy: str | None = None,
    weights: str | None = None,
    ratio: float | None = None,
    evaluated: str | None = None,
    modalities: Sequence[str] | None = None,
) -> go.Figure:
    """What each way of treating a modality's neurons costs, side by side, against the control.

    Per modality: set to 0, set to the layer's minimum, set to 0 on the modality's own tokens alone,
    and all other neurons set to 0. Panels, marks, arguments and errors as :func:`masking_effects`;
    a control is treated as the mask is.
    """
    rows = against(masking_rows(masking), control)
    rows = choose(
        rows, mined=mined, strategy=strategy, weights=weights, ratio=ratio, evaluated=evaluated
    )
    order = ordered(rows, "modality", modalities)
    cells = {(row["modality"], row["treatment"]): row for row in rows}
    ways = dict.fromkeys(("zero", "own_tokens", "layer_minimum", "keep_only"))
    ways |= dict.fromkeys(row["treatment"] for row in rows)
    drawn = [
        row | {"owner": _modality(m), "inner": TREATMENTS.get(way, way), "mask": m}
        for m in order
        for way in ways
        if (row := cells.get((m, way)))
    ]
    styles = styles_of(modalities or order)
    figure = cost_rows(drawn, [styles[row["mask"]].colour for row in drawn], control)
    return finish(
        figure,
        "What each treatment of a modality's neurons costs",
        f"{setting_text(rows, ['modality', 'treatment'])};<br>"
        f"{span([r['n_questions'] for r in rows])} questions; {control_text(rows, control)}",
        height=rows_height(drawn),
    )


def _modality(name: str) -> str:
    return "all modalities" if name == "all" else name
