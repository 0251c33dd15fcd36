"""The marks that a cost is drawn with: a mask's drop, its control's, their difference with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from mmlens.plots.frames import Row, excludes_zero
from mmlens.plots.style import GREY, INK, PALE, label, legend_entry


def effect_traces(
    figure: go.Figure,
    rows: Sequence[Row],
    colours: Sequence[str],
    shown: bool,
    heights: Sequence[int],
) -> None:
    """Drops on the left, their difference with its interval on the right, one row each.

    Rows have ``mask``, ``evaluated``, ``n_neurons``, ``n_questions``, ``drop``, ``control_drop``,
    ``control_sd``, ``difference``, ``low`` and ``high``; not a number is not drawn.
    """
    hover = [
        f"{label(r['mask'])} neurons ({r['n_neurons']}), {label(r['evaluated'])}: "
        f"{r['n_questions']} questions"
        for r in rows
    ]
    shared: Row = {"y": heights, "text": hover, "showlegend": False, "visible": shown}
    shared |= {"mode": "markers", "hovertemplate": "%{text}<br>%{x:.2f} points"}
    figure.add_scatter(
        x=[100 * r["control_drop"] for r in rows],
        name="control",
        row=1,
        col=1,
        marker={"symbol": "line-ns", "size": 14, "line": {"color": INK, "width": 2}},
        error_x={"array": [100 * r["control_sd"] for r in rows], "color": GREY, "width": 0},
        **shared,
    )
    figure.add_scatter(
        x=[100 * r["drop"] for r in rows],
        name="mask",
        row=1,
        col=1,
        marker={
            "symbol": "diamond",
            "size": 11,
            "color": colours,
            "line": {"color": INK, "width": 0.7},
        },
        **shared,
    )
    difference_trace(figure, rows, colours, shared, column=2)


def difference_trace(
    figure: go.Figure, rows: Sequence[Row], colours: Sequence[str], shared: Row, column: int
) -> None:
    """Differences with their 95% intervals, in points: filled where it excludes 0, hollow else.

    ``shared`` is what the trace shares with others: places ``y``, ``text`` of the hover, ``visible``.
    """
    clear = [excludes_zero(row) for row in rows]
    figure.add_scatter(
        x=[100 * r["difference"] for r in rows],
        name="difference",
        row=1,
        col=column,
        marker={
            "symbol": ["circle" if c else "circle-open" for c in clear],
            "size": 12,
            "color": colours,
            "line": {"color": colours, "width": 2.5},
        },
        error_x={
            "array": [100 * (r["high"] - r["difference"]) for r in rows],
            "arrayminus": [100 * (r["difference"] - r["low"]) for r in rows],
            "color": GREY,
            "thickness": 2,
            "width": 5,
        },
        **shared,
    )


#: What the marker of a difference says; the mask's has another shape, not to be read so.
INTERVAL_MARKS = (("95% interval excludes 0", "circle"), ("includes 0", "circle-open"))


def effect_legend(figure: go.Figure, control: str) -> None:
    """What the marks of :func:`effect_traces` mean, in ink alone: their colours tell masks apart."""
    drops = (("drop, mask", "diamond"), (f"drop, {control} (mean, sd)", "line-ns"))
    mark_legend(figure, (*drops, *INTERVAL_MARKS))


def mark_legend(figure: go.Figure, marks: Sequence[tuple[str, str]]) -> None:
    """Entries (name, symbol) of a legend without a trace of their own."""
    for name, symbol in marks:
        mark = {"symbol": symbol, "size": 11, "color": INK, "line": {"color": INK, "width": 2}}
        legend_entry(figure, name, "markers", marker=mark)


def effect_axes(figure: go.Figure, rows: Sequence[Row]) -> None:
    """One scale for both panels and all rows that may be drawn: lengths can be compared."""
    scale_points(figure, rows, ("drop", "control_drop", "low", "high"))
    figure.update_xaxes(title_text="drop in accuracy<br>(percentage points)", col=1)
    figure.update_xaxes(title_text="mask minus control<br>(percentage points)", col=2)


def scale_points(figure: go.Figure, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """All x axes in points, from the least to the greatest of these columns and 0, with some room."""
    ends = [100 * float(row[key]) for row in rows for key in columns]
    known = [0.0, *(end for end in ends if math.isfinite(end))]
    room = 0.06 * (max(known) - min(known)) + 0.1
    figure.update_xaxes(range=[min(known) - room, max(known) + room], zerolinewidth=2)


def bands(figure: go.Figure, owners: Sequence[str]) -> None:
    """Shade every other owner's rows, so that an eye keeps the line across both panels.

    ``owners`` names who each row belongs to, from the top.
    """
    for owner in list(dict.fromkeys(owners))[::2]:
        at = [i for i, one in enumerate(owners) if one == owner]
        figure.add_hrect(
            y0=min(at) - 0.5,
            y1=max(at) + 0.5,
            fillcolor=PALE,
            opacity=0.35,
            line_width=0,
            layer="below",
        )
