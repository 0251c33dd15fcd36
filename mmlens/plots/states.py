"""Figures of token states: measures per layer beside their baselines, contributions, scatter plots.

Part of :mod:`mmlens.plots`, which offers them by name; kept apart for length. What is drawn is OUR
definition throughout (methods section 6): MINER shows such pictures and defines no number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.style import (
    COLOURS,
    DASHES,
    GREY,
    INK,
    SYMBOLS,
    Row,
    checked_rows,
    finish,
    label,
    span,
)

METRIC_COLUMNS = (
    *("setting", "layer", "metric", "groups", "value", "low", "high"),
    *("baseline", "baseline_low", "baseline_high", "n_samples", "n_tokens"),
)
CONTRIBUTION_COLUMNS = (
    *("setting", "measure", "group", "layer", "value", "low", "high"),
    *("delta", "delta_low", "delta_high", "n_samples"),
)
SCATTER_COLUMNS = ("setting", "layer", "method", "group", "id", "position", "x", "y")
SEPARATION_NAMES = {
    "silhouette": "silhouette",
    "purity": "purity of the<br>10 nearest",
    "centroid_cosine": "cosine of<br>centroids",
    "probe": "linear probe,<br>balanced accuracy",
}
INDEX_NAMES = {
    "probing": "probing<br>index",
    "telomere": "telomere index:<br>adjacent text",
    "telomere_any": "nearest is<br>any text",
}
MEASURE_NAMES = {"attention": "attention mass", "value_norm": "value-weighted norm"}
METHOD_NAMES = {"tsne": "t-SNE", "pca": "PCA"}
#: Token groups keep colour, symbol, dash and filling in every figure; colours differ in lightness.
_LOOKS = {
    "text": ("#0072B2", "circle", "solid", ""),
    "special": ("#000000", "x", "dot", "x"),
    "image": ("#E69F00", "square", "dash", "/"),
    "video": ("#CC79A7", "diamond", "dashdot", "\\"),
    "audio": ("#009E73", "triangle-up", "longdash", "."),
    "last": ("#D9DCE1", "star", "longdashdot", ""),
}
_SETTINGS = {"none": "no mask", "random": "random control"}
_BASELINE_SHADE = "rgba(107,114,128,0.25)"


def separation_by_layer(metrics: pd.DataFrame, groups: str | None = None) -> go.Figure:
    """How far apart token groups lie, per layer (MI-9): a row per measure, a column per setting.

    The solid line is the measure, the band its baseline of labels permuted within samples; beside a
    masked setting the untouched one is drawn thin. Columns: :data:`METRIC_COLUMNS`, as
    :func:`mmlens.states.tables.metric_table` gives them.

    Args:
        metrics: the frame.
        groups: which groups, such as ``text+audio``; default: the first in the frame.

    Raises:
        ValueError: a missing column, or groups that are not there.
    """
    rows = [
        r
        for r in checked_rows(metrics, METRIC_COLUMNS, "metrics")
        if r["metric"] in SEPARATION_NAMES
    ]
    given = list(dict.fromkeys(str(row["groups"]) for row in rows))
    if not rows or (groups is not None and groups not in given):
        raise ValueError(
            f"The metrics frame compares the groups {given}, and {groups!r} was asked for."
        )
    chosen = groups or given[0]
    rows = [row for row in rows if row["groups"] == chosen]
    panels = [(m, chosen, name) for m, name in SEPARATION_NAMES.items() if _has(rows, m, chosen)]
    return finish(
        _panels(rows, panels),
        f"Do {_listed(chosen)} tokens lie apart?",
        f"Residual stream after each block (in: what enters the first); "
        f"{span([r['n_tokens'] for r in rows])} tokens of {span([r['n_samples'] for r in rows])} samples",
        height=190 + 130 * len(panels),
    ).update_layout(margin={"t": 150, "l": 180})


def indices_by_layer(metrics: pd.DataFrame) -> go.Figure:
    """Probing and telomere indices per layer (MI-11): a row per index and group, a column per setting.

    Lines have a 95% bootstrap band over samples, baselines their 95% range over permutations. Columns
    as in :func:`separation_by_layer`.

    Raises:
        ValueError: a missing column, or no index.
    """
    rows = [
        r for r in checked_rows(metrics, METRIC_COLUMNS, "metrics") if r["metric"] in INDEX_NAMES
    ]
    if not rows:
        raise ValueError(f"The metrics frame has none of the indices {list(INDEX_NAMES)}.")
    panels = []
    for metric, name in INDEX_NAMES.items():
        for group in dict.fromkeys(str(r["groups"]) for r in rows if r["metric"] == metric):
            panels.append(
                (metric, group, f"{name}{f',<br>{label(group)}' if metric == 'probing' else ''}")
            )
    return finish(
        _panels(rows, panels, share=True),
        "Which tokens reach out to others?",
        f"Share of the group's tokens, mean over {span([r['n_samples'] for r in rows])} samples",
        height=190 + 130 * len(panels),
    ).update_layout(margin={"t": 150, "l": 180})


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
    settings = list(dict.fromkeys(str(row["setting"]) for row in rows))
    measures = list(dict.fromkeys(str(row["measure"]) for row in rows))
    groups = list(dict.fromkeys(str(row["group"]) for row in rows))
    figure = make_subplots(
        rows=len(measures),
        cols=len(settings),
        shared_xaxes=True,
        column_titles=[
            _setting(settings[0]),
            *(f"{_setting(s)}: change, points" for s in settings[1:]),
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
        name = MEASURE_NAMES.get(measure, label(measure))
        figure.update_yaxes(
            title_text=f"share, {name}", range=[0, 1], tickformat=".0%", row=i, col=1
        )
        tops = [
            abs(float(r[end]))
            for r in rows
            for end in ("delta_low", "delta_high")
            if r["measure"] == measure and r["setting"] != settings[0] and not math.isnan(r[end])
        ]
        reach = 110 * max([0.005, *tops])
        for j in range(2, len(settings) + 1):
            figure.update_yaxes(range=[-reach, reach], zeroline=True, row=i, col=j)
    _layer_axes(figure, rows, len(measures))
    figure.update_layout(barmode="stack", bargap=0.15)
    finish(
        figure,
        "What the last token takes from each group",
        f"Shares that sum to 1 over groups; {span([r['n_samples'] for r in rows])} samples; bands: 95% "
        "bootstrap intervals over them",
        height=225 + 240 * len(measures),
    )
    # Both legends above the names of the columns: of the bars, and below it of the lines.
    pixel = 1 / (240 * len(measures))
    words = {"orientation": "h", "x": 0, "yanchor": "bottom", "traceorder": "normal"}
    return figure.update_layout(
        legend={**words, "y": 1 + 60 * pixel, "title": {"text": "shares  "}},
        legend2={**words, "y": 1 + 30 * pixel, "title": {"text": "changes"}, "font": {"size": 13}},
        margin={"t": 185},
    )


def state_scatter(coordinates: pd.DataFrame, method: str = "tsne") -> go.Figure:
    """Token states in the plane (MI-9): a row per setting, a column per layer, a dot per token.

    Columns: :data:`SCATTER_COLUMNS`, as :func:`mmlens.states.tables.scatter_table` gives them.

    Raises:
        ValueError: a missing column, or a method that is not there.
    """
    every = checked_rows(coordinates, SCATTER_COLUMNS, "coordinates")
    rows = [row for row in every if row["method"] == method]
    if not rows:
        given = sorted({str(row["method"]) for row in every})
        raise ValueError(
            f"The coordinates are of the methods {given}, and {method!r} was asked for."
        )
    settings = list(dict.fromkeys(str(row["setting"]) for row in rows))
    layers = sorted({int(row["layer"]) for row in rows})
    groups = list(dict.fromkeys(str(row["group"]) for row in rows))
    groups.sort(key=lambda group: list(_LOOKS).index(group) if group in _LOOKS else 99)
    figure = make_subplots(
        rows=len(settings),
        cols=len(layers),
        column_titles=["before the first block" if n < 0 else f"after layer {n}" for n in layers],
        row_titles=[_setting(setting) for setting in settings],
        horizontal_spacing=0.02,
        vertical_spacing=0.03,
    )
    for i, setting in enumerate(settings, start=1):
        for j, layer in enumerate(layers, start=1):
            for group in groups:
                here = [
                    r
                    for r in rows
                    if (r["setting"], r["layer"], r["group"]) == (setting, layer, group)
                ]
                colour, symbol, _, _ = _look(group)
                figure.add_scatter(
                    x=[r["x"] for r in here],
                    y=[r["y"] for r in here],
                    mode="markers",
                    name=f"{label(group)} tokens",
                    legendgroup=group,
                    showlegend=i == j == 1,
                    marker={"color": colour, "symbol": symbol, "size": 5, "opacity": 0.75},
                    text=[f"{label(str(r['id']))}, position {r['position']}" for r in here],
                    hovertemplate=f"%{{text}}<extra>{label(group)}</extra>",
                    row=i,
                    col=j,
                )
    _upright(figure)
    figure.update_xaxes(
        showticklabels=False, ticks="", showgrid=False, zeroline=False, mirror=True, showline=True
    )
    figure.update_yaxes(
        showticklabels=False, ticks="", showgrid=False, zeroline=False, mirror=True, showline=True
    )
    first = [r for r in rows if (r["setting"], r["layer"]) == (settings[0], layers[0])]
    finish(
        figure,
        f"Token states in the plane: {METHOD_NAMES.get(method, label(method))}",
        f"The same {len(first):,} tokens of {len({r['id'] for r in first}):,} samples in every panel",
        height=170 + 240 * len(settings),
    )
    figure.update_xaxes(ticks="")
    lift = 35 / (240 * len(settings))
    return figure.update_layout(
        legend={"y": 1 + lift, "yanchor": "bottom", "itemsizing": "constant"},
        margin={"t": 150, "l": 130},
    )


def _panels(
    rows: Sequence[Row], panels: Sequence[tuple[str, str, str]], share: bool = False
) -> go.Figure:
    """Lines with baselines: a row per (metric, groups, name), a column per setting."""
    settings = list(dict.fromkeys(str(row["setting"]) for row in rows))
    figure = make_subplots(
        rows=len(panels),
        cols=len(settings),
        shared_xaxes=True,
        shared_yaxes=True,
        column_titles=[_setting(setting) for setting in settings],
        row_titles=[name for _, _, name in panels],
        horizontal_spacing=0.025,
        vertical_spacing=0.12 / max(len(panels), 2),
    )
    for i, (metric, groups, _) in enumerate(panels, start=1):
        of_metric = [r for r in rows if (r["metric"], r["groups"]) == (metric, groups)]
        of_metric.sort(key=lambda r: r["layer"])
        untouched = [r for r in of_metric if r["setting"] == settings[0]]
        for j, setting in enumerate(settings, start=1):
            here = [r for r in of_metric if r["setting"] == setting]
            colour = COLOURS[(j - 1) % len(COLOURS)]
            _add_band(figure, here, "baseline", _BASELINE_SHADE, (i, j))
            _add_band(figure, here, "", _pale(colour), (i, j))
            _add_line(figure, here, "baseline", {"color": GREY, "dash": "dot", "width": 2}, (i, j))
            if j > 1:
                _add_line(
                    figure, untouched, "value", {"color": INK, "dash": "dash", "width": 1}, (i, j)
                )
            line = {"color": colour, "width": 2.5}
            _add_line(figure, here, "value", line, (i, j), SYMBOLS[(j - 1) % len(SYMBOLS)])
        figure.update_yaxes(range=_reach(of_metric), row=i)
        if share:
            figure.update_yaxes(range=[-0.05, 1.05], nticks=4, tickformat=".0%", row=i)
    _legend(figure, masked=len(settings) > 1)
    _upright(figure)
    figure.update_yaxes(nticks=4)
    _layer_axes(figure, rows, len(panels))
    lift = 35 / (130 * len(panels))
    return figure.update_layout(legend={"y": 1 + lift, "yanchor": "bottom"})


def _reach(rows: Sequence[Row]) -> list[float]:
    """From the least to the greatest value drawn, with some room."""
    columns = ("value", "low", "high", "baseline", "baseline_low", "baseline_high")
    drawn = [float(row[c]) for row in rows for c in columns if not math.isnan(row[c])] or [0.0, 1.0]
    room = 0.08 * (max(drawn) - min(drawn)) or 0.1
    return [min(drawn) - room, max(drawn) + room]


def _add_line(
    figure: go.Figure,
    rows: Sequence[Row],
    column: str,
    line: Row,
    at: tuple[int, int],
    symbol: str = "",
) -> None:
    figure.add_scatter(
        x=[r["layer"] for r in rows],
        y=[r[column] for r in rows],
        mode="lines+markers" if symbol else "lines",
        line=line,
        marker={"symbol": symbol, "size": 7, "color": line["color"]} if symbol else None,
        customdata=[[r["baseline"], r["n_samples"], r["n_tokens"]] for r in rows],
        hovertemplate="layer %{x}: %{y:.3f}, baseline %{customdata[0]:.3f} "
        "(%{customdata[1]} samples, %{customdata[2]} tokens)<extra></extra>",
        showlegend=False,
        row=at[0],
        col=at[1],
    )


def _add_band(
    figure: go.Figure, rows: Sequence[Row], column: str, shade: str, at: tuple[int, int]
) -> None:
    low, high = (f"{column}_low", f"{column}_high") if column else ("low", "high")
    known = [r for r in rows if not math.isnan(r[low])]
    if known:
        figure.add_scatter(
            x=[r["layer"] for r in known] + [r["layer"] for r in known[::-1]],
            y=[r[high] for r in known] + [r[low] for r in known[::-1]],
            fill="toself",
            fillcolor=shade,
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
            row=at[0],
            col=at[1],
        )


def _add_bars(
    figure: go.Figure, rows: Sequence[Row], group: str, at: tuple[int, int], legend: bool
) -> None:
    colour, _, _, filling = _look(group)
    figure.add_bar(
        x=[r["layer"] for r in rows],
        y=[r["value"] for r in rows],
        name=_group(group),
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
        f"<extra>{_group(group)}</extra>",
        row=at[0],
        col=at[1],
    )


def _add_delta(
    figure: go.Figure, rows: Sequence[Row], group: str, at: tuple[int, int], legend: bool
) -> None:
    colour, symbol, dash, _ = _look(group)
    x = [r["layer"] for r in rows]
    figure.add_scatter(
        x=[*x, *x[::-1]],
        y=[100 * r["delta_high"] for r in rows] + [100 * r["delta_low"] for r in rows[::-1]],
        fill="toself",
        fillcolor=_pale(colour),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        row=at[0],
        col=at[1],
    )
    figure.add_scatter(
        x=x,
        y=[100 * r["delta"] for r in rows],
        mode="lines+markers",
        name=_group(group),
        legend="legend2",
        showlegend=legend,
        line={"color": GREY if group == "last" else colour, "dash": dash, "width": 2},
        marker={"symbol": symbol, "size": 7},
        hovertemplate=f"layer %{{x}}: %{{y:+.2f}} points<extra>{_group(group)}</extra>",
        row=at[0],
        col=at[1],
    )


def _legend(figure: go.Figure, masked: bool) -> None:
    """Lines vary in colour by setting: the legend shows what kinds of lines there are."""
    looks: list[tuple[str, str, Row]] = [
        ("measured", "lines+markers", {"color": INK, "width": 2.5}),
        ("permuted: mean and 95% range", "lines", {"color": GREY, "dash": "dot", "width": 2}),
    ]
    if masked:
        looks.insert(1, ("without a mask", "lines", {"color": INK, "dash": "dash", "width": 1}))
    for name, mode, line in looks:
        figure.add_scatter(
            x=[None], y=[None], mode=mode, line=line, marker={"color": INK, "size": 7}, name=name
        )


def _layer_axes(figure: go.Figure, rows: Sequence[Row], last_row: int) -> None:
    layers = sorted({int(row["layer"]) for row in rows})
    step = max(1, round(len(layers) / 8))
    shown = [layer for layer in layers if layer < 0 or layer % step == 0]
    figure.update_xaxes(
        tickvals=shown,
        ticktext=["in" if layer < 0 else str(layer) for layer in shown],
        range=[layers[0] - 0.6, layers[-1] + 0.6],
        zeroline=False,
    )
    figure.update_xaxes(title_text="layer", row=last_row)


def _upright(figure: go.Figure) -> None:
    """Row titles upright at the left, where they are read first."""
    look: dict[str, Any] = {"textangle": 0, "x": 0, "xanchor": "right", "align": "right"}
    figure.update_annotations(selector={"textangle": 90}, **look, xshift=-46, font={"size": 13})
    figure.update_annotations(selector={"yanchor": "bottom"}, font={"size": 14})


def _has(rows: Sequence[Row], metric: str, groups: str) -> bool:
    return any((r["metric"], r["groups"]) == (metric, groups) for r in rows)


def _look(group: str) -> tuple[str, str, str, str]:
    if group in _LOOKS:
        return _LOOKS[group]
    at = sum(map(ord, group))
    return COLOURS[at % 7], SYMBOLS[at % 9], DASHES[at % 5], "+"


def _group(name: str) -> str:
    return "the last token itself" if name == "last" else f"{label(name)} tokens"


def _setting(name: str) -> str:
    return _SETTINGS.get(name, label(name))


def _listed(groups: str) -> str:
    *first, last = groups.split("+")
    return label(f"{', '.join(first)} and {last}" if first else last)


def _pale(colour: str) -> str:
    """A hexadecimal colour, mostly transparent."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.25)"
