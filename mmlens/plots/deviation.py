"""How far silencing moves the hidden states, layer by layer, beside the controls."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.frames import DEVIATION_COLUMNS, Row, at_fraction, checked_rows, in_order
from mmlens.plots.numbers import percent, span
from mmlens.plots.style import (
    INK,
    DomainStyle,
    finish,
    label,
    legend_entry,
    pale,
    styles_of,
    upright_titles,
)
from mmlens.plots.traces import CONTROL_LOOKS, line_with_band

METRIC_NAMES = {
    "relative_l2": "relative deviation ||h' - h|| / ||h||",
    "cosine_distance": "cosine distance 1 - cos(h, h')",
}


def deviation_by_layer(
    deviations: pd.DataFrame,
    metric: str = "relative_l2",
    fraction: float = 0.01,
    *,
    domains: Sequence[str] | None = None,
) -> go.Figure:
    """How far silencing moves the hidden states after each block: a set's neurons and controls.

    A row per domain (and all together), a column per token group; within a row one scale. The set's
    line has a band of one standard error over samples, a control's line is the mean over its sets
    with a band of one standard deviation over them. Columns: :data:`DEVIATION_COLUMNS`, as
    :func:`mmlens.ablation.deviation.deviation` gives them. ValueError for a missing column, or a metric or
    fraction that is not there.
    """
    rows = at_fraction(
        checked_rows(deviations, DEVIATION_COLUMNS, "deviations"), fraction, "deviations"
    )
    rows = [row for row in rows if row["metric"] == metric]
    if not rows:
        given = sorted({str(one) for one in deviations["metric"]})
        raise ValueError(f"The deviations have the metrics {given}, and {metric!r} was asked for.")
    present, groups = in_order(rows, "mask"), in_order(rows, "group")
    order = list(domains) if domains is not None else [m for m in present if m != "all"]
    masks = [m for m in (*order, "all") if m in present]
    styles = styles_of(order)
    figure = _panels(masks, groups)
    for i, mask in enumerate(masks, start=1):
        top = 0.0
        for j, group in enumerate(groups, start=1):
            here = [r for r in rows if r["mask"] == mask and r["group"] == group]
            top = max([top, *_panel(figure, here, mask, styles[mask], (i, j))])
        figure.update_yaxes(range=[0, 1.08 * top or 1.0], row=i)
    _legend(figure)
    _layer_axes(figure, 1 + max(int(row["layer"]) for row in rows), len(masks))
    seeds = len({r["seed"] for r in rows if r["kind"] in CONTROL_LOOKS})
    widest = max(len(mask) for mask in (*masks, "all domains"))
    panels = 125 * max(len(masks), 2)
    return finish(
        figure,
        f"How far silencing moves the hidden states: {METRIC_NAMES.get(metric, label(metric))}",
        f"After every block, fraction {percent(fraction)}; "
        f"{span([r['n_samples'] for r in rows])} samples, {seeds} control sets of each kind",
        height=205 + panels,
        # Above the names of the columns, about 30 pixels.
        legend={"y": 1 + 30 / panels, "yanchor": "bottom"},
        margin={"t": 145, "l": 70 + 8 * widest},
    )


def _panels(masks: Sequence[str], groups: Sequence[str]) -> go.Figure:
    """A row per set, its name upright at the left; a column per token group."""
    figure = make_subplots(
        rows=len(masks),
        cols=len(groups),
        shared_xaxes=True,
        shared_yaxes=True,
        column_titles=["last token" if g == "last" else f"{label(g)} tokens" for g in groups],
        row_titles=["all domains" if m == "all" else label(m) for m in masks],
        vertical_spacing=0.25 / max(len(masks), 2) * 0.6,
        horizontal_spacing=0.025,
    )
    upright_titles(figure, -62)
    return figure


def _panel(
    figure: go.Figure, here: Sequence[Row], mask: str, style: DomainStyle, at: tuple[int, int]
) -> list[float]:
    """One set's line and its controls' over the layers; the upper ends of all bands."""
    tops: list[float] = []
    for kind, (name, line, shade) in CONTROL_LOOKS.items():
        layers, mean, spread = _over_seeds([r for r in here if r["kind"] == kind])
        line_with_band(figure, layers, mean, spread, shade, line, name, at)
        tops += [m + s for m, s in zip(mean, spread, strict=True)]
    own = sorted((r for r in here if r["kind"] == "mask"), key=lambda r: r["layer"])
    layers, mean = [int(r["layer"]) for r in own], [float(r["mean"]) for r in own]
    error = [0.0 if math.isnan(r["se"]) else float(r["se"]) for r in own]
    look: Row = {"color": style.colour, "width": 2.5}
    line_with_band(figure, layers, mean, error, pale(style.colour), look, "mask", at)
    figure.add_scatter(
        x=layers,
        y=mean,
        mode="markers",
        name="points",
        marker={"color": style.colour, "symbol": style.symbol, "size": 7},
        customdata=[[r["n_samples"], r["se"]] for r in own],
        hovertemplate="layer %{x}: %{y:.4g} (se %{customdata[1]:.2g}, "
        f"%{{customdata[0]}} samples)<extra>{label(mask)}</extra>",
        showlegend=False,
        row=at[0],
        col=at[1],
    )
    return tops + [m + e for m, e in zip(mean, error, strict=True)]


def _layer_axes(figure: go.Figure, depth: int, last_row: int) -> None:
    """Layers below, from 0; values from 0."""
    figure.update_xaxes(title_text="layer", row=last_row)
    figure.update_yaxes(nticks=4, rangemode="tozero")
    ticks: Row = {"dtick": 1} if depth <= 12 else {"nticks": 9}
    figure.update_xaxes(range=[-0.3, depth - 0.7], zeroline=False, **ticks)


def _over_seeds(rows: Sequence[Row]) -> tuple[list[int], list[float], list[float]]:
    """Layers; per layer the mean over control sets, and their standard deviation (0 of one set)."""
    by_layer: dict[int, list[float]] = {}
    for row in rows:
        by_layer.setdefault(int(row["layer"]), []).append(float(row["mean"]))
    layers = sorted(by_layer)
    values = [np.array(by_layer[layer]) for layer in layers]
    spread = [float(v.std(ddof=1)) if len(v) > 1 else 0.0 for v in values]
    return layers, [float(v.mean()) for v in values], spread


def _legend(figure: go.Figure) -> None:
    """Lines vary in colour by domain: the legend shows dash and band alone."""
    name, marker = "the set's neurons ± se over samples", {"color": INK, "size": 7}
    legend_entry(figure, name, "lines+markers", line={"color": INK, "width": 2.5}, marker=marker)
    for name, line, _ in CONTROL_LOOKS.values():
        legend_entry(figure, name, "lines", line=line)
