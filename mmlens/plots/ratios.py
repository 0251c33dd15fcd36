"""Accuracy against the share of neurons that is masked."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.frames import Row, excludes_zero, ordered
from mmlens.plots.masking_frames import against, described, masking_rows, modality_name
from mmlens.plots.style import GREY, INK, DomainStyle, finish, label, legend_entry, styles_of
from mmlens.plots.traces import CONTROL_LOOKS, line_with_band


def ratio_curves(
    masking: pd.DataFrame,
    control: str = "matched",
    *,
    modalities: Sequence[str] | None = None,
) -> go.Figure:
    """Accuracy (per cent) against the ratio of neurons (per cent, log scale), a panel per modality.

    The mask's line has a filled marker where the 95% interval of its difference from ``control``
    excludes 0, a hollow one elsewhere. Lines with a band are all controls there are, mean and standard
    deviation over their sets; the thin line is the model untouched. Errors as
    :func:`mmlens.plots.masking_effects`.
    """
    table = masking_rows(masking, ("modality", "ratio"))
    rows = sorted(against(table, control), key=lambda row: row["ratio"])
    order = ordered(rows, "modality", modalities)
    styles = styles_of(modalities or order)
    columns = min(2, len(order))
    panels = math.ceil(len(order) / columns)
    figure = make_subplots(
        rows=panels,
        cols=columns,
        shared_yaxes=True,
        subplot_titles=[
            label(modality_name(m)) + ("" if m == "all" else " neurons") for m in order
        ],
        vertical_spacing=0.3 / max(panels, 2),
        horizontal_spacing=0.04,
    )
    figure.update_annotations(font={"size": 14}, yshift=3)
    for i, modality in enumerate(order):
        at = (i // columns + 1, i % columns + 1)
        for kind in CONTROL_LOOKS:
            here = [r for r in table if (r["modality"], r["control"]) == (modality, kind)]
            _control_band(figure, here, kind, at)
        own = [row for row in rows if row["modality"] == modality]
        _mask_line(figure, own, styles[modality], at)
    _ratio_legend(figure, control, {row["control"] for row in table})
    _ratio_axes(figure, table, len(order), columns)
    subtitle = described(rows, control, ["modality", "ratio"])
    return finish(
        figure,
        "Accuracy against the share of neurons masked",
        subtitle,
        height=290 + 240 * panels,
        legend={"y": 1 + 28 / (240 * panels)},
        margin={"t": 230, "b": 60},
    )


def _ratio_axes(figure: go.Figure, rows: Sequence[Row], panels: int, columns: int) -> None:
    """Ratios on a log scale, named below the lowest panel of each column; one scale of accuracy."""
    figure.update_xaxes(type="log", dtick="D2")
    for column in range(1, columns + 1):
        lowest = (panels - column) // columns + 1
        figure.update_xaxes(title_text="neurons (% of all, log scale)", row=lowest, col=column)
    values = [100 * row[key] for row in rows for key in ("baseline", "masked", "control_mean")]
    known = [value for value in values if math.isfinite(value)] or [0.0, 100.0]
    room = 0.06 * (max(known) - min(known)) + 1
    figure.update_yaxes(range=[min(known) - room, max(known) + room], zeroline=False)
    figure.update_yaxes(title_text="accuracy (%)", col=1)


def _mask_line(
    figure: go.Figure, rows: Sequence[Row], style: DomainStyle, at: tuple[int, int]
) -> None:
    """Accuracy untouched and under the mask, against the ratio in per cent."""
    place: Row = {"x": [100 * r["ratio"] for r in rows], "row": at[0], "col": at[1]}
    figure.add_scatter(
        y=[100 * r["baseline"] for r in rows],
        mode="lines",
        name="baseline",
        line={"color": GREY, "width": 1.2},
        hovertemplate="untouched: %{y:.1f}%<extra></extra>",
        showlegend=False,
        **place,
    )
    clear = [excludes_zero(r) for r in rows]
    figure.add_scatter(
        y=[100 * r["masked"] for r in rows],
        mode="lines+markers",
        name="mask",
        line={"color": style.colour, "width": 2.5},
        marker={
            "symbol": "circle",
            "size": 10,
            "color": [style.colour if one else "#ffffff" for one in clear],
            "line": {"color": style.colour, "width": 2},
        },
        customdata=[[r["n_neurons"], 100 * r["difference"]] for r in rows],
        hovertemplate="%{x:g}%: %{y:.1f}%<br>%{customdata[0]} neurons, %{customdata[1]:.1f} points "
        "below the control<extra></extra>",
        showlegend=False,
        **place,
    )


def _control_band(figure: go.Figure, rows: Sequence[Row], kind: str, at: tuple[int, int]) -> None:
    """Accuracy under one control, mean and standard deviation, where it was run."""
    run = [r for r in rows if math.isfinite(r["control_mean"])]
    run.sort(key=lambda row: row["ratio"])
    ratios, means = ([100 * r[column] for r in run] for column in ("ratio", "control_mean"))
    spread = [100 * r["control_sd"] if math.isfinite(r["control_sd"]) else 0.0 for r in run]
    name, line, shade = CONTROL_LOOKS[kind]
    line_with_band(figure, ratios, means, spread, shade, line, name, at)


def _ratio_legend(figure: go.Figure, control: str, present: set[str]) -> None:
    """Lines vary in colour by modality: the legend is in ink."""
    for name, fill in (
        (f"mask: interval against {label(control)} excludes 0", INK),
        ("mask: includes 0, or no control", "#ffffff"),
    ):
        marker = {"color": fill, "size": 10, "line": {"color": INK, "width": 2}}
        line = {"color": INK, "width": 2.5}
        legend_entry(figure, name, "lines+markers", line=line, marker=marker)
    for kind, (name, line, _) in CONTROL_LOOKS.items():
        if kind in present:
            legend_entry(figure, name, "lines", line=line)
    legend_entry(figure, "nothing masked", "lines", line={"color": GREY, "width": 1.2})
