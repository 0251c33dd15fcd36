"""Rows of costs: drops of mask and control at the left, their difference at the right, a line per mask."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.effect_marks import bands, effect_axes, effect_legend, effect_traces
from mmlens.plots.frames import Row
from mmlens.plots.style import GREY, label, wrapped

#: Above: title, subtitle, and a legend that takes up to four lines in a narrow window.
MARGINS = {"t": 180, "b": 75}


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
