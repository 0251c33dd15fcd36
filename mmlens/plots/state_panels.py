"""What figures of token states share: panels of lines with baselines, looks of token groups and settings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.frames import Row, in_order
from mmlens.plots.style import (
    COLOURS,
    DASHES,
    GREY,
    INK,
    SYMBOLS,
    label,
    legend_entry,
    pale,
    upright_titles,
)
from mmlens.plots.traces import area

#: Token groups keep colour, symbol, dash and filling in every figure; colours differ in lightness.
GROUP_LOOKS = {
    "text": ("#0072B2", "circle", "solid", ""),
    "special": ("#000000", "x", "dot", "x"),
    "image": ("#E69F00", "square", "dash", "/"),
    "video": ("#CC79A7", "diamond", "dashdot", "\\"),
    "audio": ("#009E73", "triangle-up", "longdash", "."),
    "last": ("#D9DCE1", "star", "longdashdot", ""),
}


_SETTINGS = {"none": "no mask", "random": "random control"}


# Lines of the baselines, and of the setting without a mask beside a masked one.
_PERMUTED: Row = {"color": GREY, "dash": "dot", "width": 2}
_UNTOUCHED: Row = {"color": INK, "dash": "dash", "width": 1}


def panels_by_setting(
    rows: Sequence[Row], panels: Sequence[tuple[str, str, str]], share: bool = False
) -> go.Figure:
    """Lines with baselines: a row per (metric, groups, name), a column per setting."""
    settings = in_order(rows, "setting")
    figure = make_subplots(
        rows=len(panels),
        cols=len(settings),
        shared_xaxes=True,
        shared_yaxes=True,
        column_titles=[setting_name(setting) for setting in settings],
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
            _add_band(figure, here, "baseline_low", "baseline_high", pale(GREY), (i, j))
            _add_band(figure, here, "low", "high", pale(colour), (i, j))
            _add_line(figure, here, "baseline", _PERMUTED, (i, j))
            if j > 1:
                _add_line(figure, untouched, "value", _UNTOUCHED, (i, j))
            line = {"color": colour, "width": 2.5}
            _add_line(figure, here, "value", line, (i, j), SYMBOLS[(j - 1) % len(SYMBOLS)])
        figure.update_yaxes(range=_reach(of_metric), row=i)
        if share:
            figure.update_yaxes(range=[-0.05, 1.05], nticks=4, tickformat=".0%", row=i)
    _legend(figure, masked=len(settings) > 1)
    upright_titles(figure, -46, size=13, align="right")
    figure.update_yaxes(nticks=4)
    layer_axes(figure, rows, len(panels))
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
    figure: go.Figure, rows: Sequence[Row], low: str, high: str, shade: str, at: tuple[int, int]
) -> None:
    """A band between two columns, where they are known."""
    if known := [r for r in rows if not math.isnan(r[low])]:
        x, lows, highs = ([r[column] for r in known] for column in ("layer", low, high))
        area(figure, x, lows, highs, shade, at)


def _legend(figure: go.Figure, masked: bool) -> None:
    """Lines vary in colour by setting: the legend shows what kinds of lines there are."""
    looks: list[tuple[str, str, Row]] = [
        ("measured", "lines+markers", {"color": INK, "width": 2.5}),
        ("permuted: mean and 95% range", "lines", _PERMUTED),
    ]
    if masked:
        looks.insert(1, ("without a mask", "lines", _UNTOUCHED))
    for name, mode, line in looks:
        legend_entry(figure, name, mode, line=line, marker={"color": INK, "size": 7})


def layer_axes(figure: go.Figure, rows: Sequence[Row], last_row: int) -> None:
    """Layers on all x axes, at most about nine of them named; -1 is what enters the first."""
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


def look_of(group: str) -> tuple[str, str, str, str]:
    """Colour, symbol, dash and filling of a token group."""
    if group in GROUP_LOOKS:
        return GROUP_LOOKS[group]
    at = sum(map(ord, group))
    return COLOURS[at % 7], SYMBOLS[at % 9], DASHES[at % 5], "+"


def group_name(name: str) -> str:
    """A token group as legends name it."""
    return "the last token itself" if name == "last" else f"{label(name)} tokens"


def setting_name(name: str) -> str:
    """A setting as titles name it."""
    return _SETTINGS.get(name, label(name))
