"""Figures of masking modality-specific neurons (MINER): what it costs, beside the controls.

Part of :mod:`mmlens.plots`, which offers them by name. Each is drawn from the masking table
(:data:`MASKING_COLUMNS`): a row per setting, evaluated data set and control. Where a figure shows
one value of a column (one strategy, one ratio, ...) it is an argument; without it the only value
there is, or methods.md's default among several, is drawn, and the subtitle says which.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.deviation import CONTROL_LOOKS, band
from mmlens.plots.effects import bands, effect_axes, effect_legend, effect_traces
from mmlens.plots.masking_frames import (
    TREATMENTS,
    against,
    choose,
    control_text,
    excludes_zero,
    masking_rows,
    ordered,
    setting_text,
    styles_of,
    wrapped,
)
from mmlens.plots.style import GREY, INK, DomainStyle, Row, finish, label, span

#: Above: title, subtitle, and a legend that takes up to four lines in a narrow window.
MARGINS = {"t": 180, "b": 75}


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


def ratio_curves(
    masking: pd.DataFrame,
    control: str = "matched",
    *,
    mined: str | None = None,
    strategy: str | None = None,
    weights: str | None = None,
    treatment: str | None = None,
    evaluated: str | None = None,
    modalities: Sequence[str] | None = None,
) -> go.Figure:
    """Accuracy (per cent) against the ratio of neurons (per cent, log scale), a panel per modality.

    The mask's line has a filled marker where the 95% interval of its difference from ``control``
    excludes 0, a hollow one elsewhere. Lines with a band are all controls there are, mean and standard
    deviation over their sets; the thin line is the model untouched. Errors as
    :func:`masking_effects`.
    """
    table = masking_rows(masking)
    chosen = {"mined": mined, "strategy": strategy, "weights": weights, "treatment": treatment}
    table = choose(table, **chosen, evaluated=evaluated)
    rows = sorted(against(table, control), key=lambda row: row["ratio"])
    order = ordered(rows, "modality", modalities)
    styles = styles_of(modalities or order)
    columns = min(2, len(order))
    panels = math.ceil(len(order) / columns)
    figure = make_subplots(
        rows=panels,
        cols=columns,
        shared_yaxes=True,
        subplot_titles=[label(_modality(m)) + ("" if m == "all" else " neurons") for m in order],
        vertical_spacing=0.3 / max(panels, 2),
        horizontal_spacing=0.04,
    )
    figure.update_annotations(font={"size": 14}, yshift=3)
    for i, modality in enumerate(order):
        at = (i // columns + 1, i % columns + 1)
        own = [row for row in rows if row["modality"] == modality]
        for kind, (name, dash, shade) in CONTROL_LOOKS.items():
            here = [r for r in table if (r["modality"], r["control"]) == (modality, kind)]
            _control_band(figure, here, name, dash, shade, at)
        _mask_line(figure, own, styles[modality], at)
    _ratio_legend(figure, control, {row["control"] for row in table})
    figure.update_xaxes(type="log", dtick="D2")
    for column in range(1, columns + 1):
        lowest = (len(order) - column) // columns + 1
        figure.update_xaxes(title_text="neurons (% of all, log scale)", row=lowest, col=column)
    values = [100 * row[key] for row in table for key in ("baseline", "masked", "control_mean")]
    known = [value for value in values if math.isfinite(value)] or [0.0, 100.0]
    room = 0.06 * (max(known) - min(known)) + 1
    figure.update_yaxes(range=[min(known) - room, max(known) + room], zeroline=False)
    figure.update_yaxes(title_text="accuracy (%)", col=1)
    finish(
        figure,
        "Accuracy against the share of neurons masked",
        f"{setting_text(rows, ['modality', 'ratio'])};<br>"
        f"{span([r['n_questions'] for r in rows])} questions; {control_text(rows, control)}",
        height=290 + 240 * panels,
    )
    lift = 28 / (240 * panels)
    return figure.update_layout(legend={"y": 1 + lift}, margin={"t": 230, "b": 60})


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


def _control_band(
    figure: go.Figure,
    rows: Sequence[Row],
    name: str,
    dash: str,
    shade: str,
    at: tuple[int, int],
) -> None:
    """Accuracy under one control, mean and standard deviation, where it was run."""
    found = [r for r in rows if math.isfinite(r["control_mean"])]
    found.sort(key=lambda row: row["ratio"])
    spread = [100 * r["control_sd"] if math.isfinite(r["control_sd"]) else 0.0 for r in found]
    line = {"color": GREY if dash == "dash" else INK, "dash": dash, "width": 2}
    ratios = [100 * r["ratio"] for r in found]
    band(figure, ratios, [100 * r["control_mean"] for r in found], spread, shade, line, name, at)


def _ratio_legend(figure: go.Figure, control: str, present: set[str]) -> None:
    """Lines vary in colour by modality: the legend is in ink."""
    for name, fill in (
        (f"mask: interval against {label(control)} excludes 0", INK),
        ("mask: includes 0, or no control", "#ffffff"),
    ):
        figure.add_scatter(
            x=[None],
            y=[None],
            name=name,
            mode="lines+markers",
            line={"color": INK, "width": 2.5},
            marker={"color": fill, "size": 10, "line": {"color": INK, "width": 2}},
        )
    looks = [(CONTROL_LOOKS[kind][:2]) for kind in CONTROL_LOOKS if kind in present]
    for name, dash in looks:
        line = {"color": GREY if dash == "dash" else INK, "dash": dash, "width": 2}
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=name)
    thin = {"color": GREY, "width": 1.2}
    figure.add_scatter(x=[None], y=[None], mode="lines", line=thin, name="nothing masked")


def cost_rows(rows: Sequence[Row], colours: Sequence[str], control: str) -> go.Figure:
    """Drops of mask and control at the left, their difference at the right, a line per row.

    Rows come in order, those of one ``owner`` together: its name stands above them, and ``inner``
    names each line; where every owner has one and the same, the owner alone. Without a title yet.
    """
    lines = slots(rows)
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.05)
    heights = [i for i, (_, _, row) in enumerate(lines) if row is not None]
    effect_traces(figure, rows, colours, True, heights)
    effect_legend(figure, f"{label(control)} control")
    ticks = [text for _, text, _ in lines]
    figure.update_yaxes(
        tickvals=list(range(len(lines))),
        ticktext=ticks,
        zeroline=False,
        showgrid=False,
        range=[len(lines) - 0.5, -0.5],
    )
    for height, row in zip(heights, rows, strict=True):
        if math.isnan(row["difference"]):
            figure.add_annotation(
                x=0.5,
                y=height,
                xref="x2 domain",
                yref="y2",
                text="no control",
                showarrow=False,
                font={"size": 12, "color": GREY},
            )
    effect_axes(figure, rows)
    figure.update_xaxes(title_text="accuracy lost<br>(points)", col=1)
    figure.update_xaxes(title_text="mask minus<br>control (points)", col=2)
    bands(figure, [owner for owner, _, _ in lines])
    # A fixed distance above the panels: as a share of a tall figure it would reach the title.
    inner = rows_height(rows) - MARGINS["t"] - MARGINS["b"]
    return figure.update_layout(margin=MARGINS, legend={"y": 1 + 8 / inner})


def slots(rows: Sequence[Row]) -> list[tuple[str, str, Row | None]]:
    """(owner, text, row) of every line from the top; a line that only names an owner has no row."""
    alone = len({row["inner"] for row in rows}) == 1
    lines: list[tuple[str, str, Row | None]] = []
    for row in rows:
        owner = str(row["owner"])
        if not alone and (not lines or lines[-1][0] != owner):
            lines.append((owner, f"<b>{wrapped(owner, 28, 1)}</b>", None))
        text = wrapped(owner if alone else row["inner"], 24)
        lines.append((owner, text, row))
    return lines


def rows_height(rows: Sequence[Row]) -> int:
    """Height in pixels of a figure of :func:`cost_rows`."""
    lines = slots(rows)
    each = 40 if any("<br>" in text for _, text, _ in lines) else 27
    return max(400, MARGINS["t"] + MARGINS["b"] + each * len(lines))


def _modality(name: str) -> str:
    return "all modalities" if name == "all" else name
