"""What each token group contributes to the last token, per layer, and its change under masks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.frames import CONTRIBUTION_COLUMNS, Row, checked_rows, in_order
from mmlens.plots.numbers import span
from mmlens.plots.state_panels import group_name, layer_axes, look_of, setting_name
from mmlens.plots.style import GREY, INK, finish, label, pale
from mmlens.plots.traces import area

MEASURE_NAMES = {"attention": "attention mass", "value_norm": "value-weighted norm"}


def contributions_by_layer(contributions: pd.DataFrame) -> go.Figure:
    """What each token group contributes to the last token, per layer, and its change under masks (MI-10).

    A row per measure. Left, stacked: the shares without a mask. Then a column per other setting: its
    share minus the untouched one, paired per sample, with a 95% bootstrap band over samples. Columns:
    :data:`CONTRIBUTION_COLUMNS`, as :func:`mmlens.states.tables.contributions` gives them; the first
    setting is the untouched one.

    Raises:
        ValueError: a missing column, or an empty frame.
    """
    rows = checked_rows(contributions, CONTRIBUTION_COLUMNS, "contributions")
    settings, measures, groups = (in_order(rows, c) for c in ("setting", "measure", "group"))
    figure = make_subplots(
        rows=len(measures),
        cols=len(settings),
        shared_xaxes=True,
        column_titles=[
            setting_name(settings[0]),
            *(f"{setting_name(s)}: change, points" for s in settings[1:]),
        ],
        horizontal_spacing=0.05,
        vertical_spacing=0.08,
    )
    for i, measure in enumerate(measures, start=1):
        for j, setting in enumerate(settings, start=1):
            for group in groups:
                here = [
                    r
                    for r in rows
                    if (r["setting"], r["measure"], r["group"]) == (setting, measure, group)
                ]
                here.sort(key=lambda r: r["layer"])
                if j == 1:
                    _add_bars(figure, here, group, (i, j), legend=i == 1)
                else:
                    _add_delta(figure, here, group, (i, j), legend=i == 1 and j == 2)
        _share_axes(figure, [r for r in rows if r["measure"] == measure], settings, i)
    layer_axes(figure, rows, len(measures))
    figure.update_layout(barmode="stack", bargap=0.15)
    # Both legends above the names of the columns: of the bars, and below it of the lines.
    pixel = 1 / (240 * len(measures))
    words = {"orientation": "h", "x": 0, "yanchor": "bottom", "traceorder": "normal"}
    return finish(
        figure,
        "What the last token takes from each group",
        f"Shares that sum to 1 over groups; {span([r['n_samples'] for r in rows])} samples; bands: 95% "
        "bootstrap intervals over them",
        height=225 + 240 * len(measures),
        legend={**words, "y": 1 + 60 * pixel, "title": {"text": "shares  "}},
        legend2={**words, "y": 1 + 30 * pixel, "title": {"text": "changes"}, "font": {"size": 13}},
        margin={"t": 185},
    )


def _share_axes(figure: go.Figure, rows: Sequence[Row], settings: Sequence[str], at: int) -> None:
    """One measure's axes: shares from 0 to 1 at the left, changes about 0 on one scale beside them."""
    measure = str(rows[0]["measure"])
    name = MEASURE_NAMES.get(measure, label(measure))
    figure.update_yaxes(title_text=f"share, {name}", range=[0, 1], tickformat=".0%", row=at, col=1)
    tops = [
        abs(float(r[end]))
        for r in rows
        for end in ("delta_low", "delta_high")
        if r["setting"] != settings[0] and not math.isnan(r[end])
    ]
    reach = 110 * max([0.005, *tops])
    for j in range(2, len(settings) + 1):
        figure.update_yaxes(range=[-reach, reach], zeroline=True, row=at, col=j)


def _add_bars(
    figure: go.Figure, rows: Sequence[Row], group: str, at: tuple[int, int], legend: bool
) -> None:
    colour, _, _, filling = look_of(group)
    figure.add_bar(
        x=[r["layer"] for r in rows],
        y=[r["value"] for r in rows],
        name=group_name(group),
        legendgroup=group,
        showlegend=legend,
        marker={
            "color": colour,
            "line": {"color": INK, "width": 0.5},
            "pattern": {
                "shape": filling,
                "fillmode": "overlay",
                "fgcolor": "#ffffff",
                "solidity": 0.2,
                "size": 9,
            },
        },
        customdata=[[r["low"], r["high"]] for r in rows],
        hovertemplate="layer %{x}: %{y:.1%} (%{customdata[0]:.1%} to %{customdata[1]:.1%})"
        f"<extra>{group_name(group)}</extra>",
        row=at[0],
        col=at[1],
    )


def _add_delta(
    figure: go.Figure, rows: Sequence[Row], group: str, at: tuple[int, int], legend: bool
) -> None:
    colour, symbol, dash, _ = look_of(group)
    x = [r["layer"] for r in rows]
    low, high = ([100 * r[end] for r in rows] for end in ("delta_low", "delta_high"))
    area(figure, x, low, high, pale(colour), at)
    figure.add_scatter(
        x=x,
        y=[100 * r["delta"] for r in rows],
        mode="lines+markers",
        name=group_name(group),
        legend="legend2",
        showlegend=legend,
        line={"color": GREY if group == "last" else colour, "dash": dash, "width": 2},
        marker={"symbol": symbol, "size": 7},
        hovertemplate=f"layer %{{x}}: %{{y:+.2f}} points<extra>{group_name(group)}</extra>",
        row=at[0],
        col=at[1],
    )
