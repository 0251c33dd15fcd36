"""What figures of curves have in common: bands around lines, and how controls are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from mmlens.plots.frames import Row
from mmlens.plots.style import GREY, INK

#: What random sets of the same sizes would have in common.
CHANCE_LINE: Row = {"color": GREY, "dash": "dot", "width": 2}

# kind -> name, line, shade of the band. Bands differ in lightness, lines in dash.
CONTROL_LOOKS: dict[str, tuple[str, Row, str]] = {
    "random": (
        "random control ± sd over its sets",
        {"color": GREY, "dash": "dash", "width": 2},
        "rgba(107,114,128,0.20)",
    ),
    "matched": (
        "matched control ± sd over its sets",
        {"color": INK, "dash": "dot", "width": 2},
        "rgba(31,35,40,0.30)",
    ),
}


def curve(
    figure: go.Figure,
    x: Sequence[int | float | None],
    y: Sequence[int | float | None],
    name: str,
    group: str,
    hover: str,
    line: Row,
    at: tuple[int, int],
    marker: Row | None = None,
) -> None:
    """A line of a panel (row, column), named in the legend by its group's line in the first panel."""
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines+markers" if marker else "lines",
        name=name,
        legendgroup=group,
        showlegend=at == (1, 1),
        line=line,
        marker=marker,
        hovertemplate=hover,
        row=at[0],
        col=at[1],
    )


def area(
    figure: go.Figure,
    x: Sequence[int | float],
    low: Sequence[int | float],
    high: Sequence[int | float],
    colour: str,
    at: tuple[int, int],
    **look: Any,
) -> None:
    """The area between ``low`` and ``high`` in one panel (row, column), without a legend or hover."""
    figure.add_scatter(
        x=[*x, *x[::-1]],
        y=[*high, *low[::-1]],
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=colour,
        hoverinfo="skip",
        showlegend=False,
        row=at[0],
        col=at[1],
        **look,
    )


def line_with_band(
    figure: go.Figure,
    x: Sequence[int | float],
    mean: Sequence[float],
    spread: Sequence[float],
    shade: str,
    line: Row,
    name: str,
    at: tuple[int, int],
) -> None:
    """A line with a band of mean - spread to mean + spread around it."""
    if not x:
        return
    low = [m - s for m, s in zip(mean, spread, strict=True)]
    high = [m + s for m, s in zip(mean, spread, strict=True)]
    area(figure, x, low, high, shade, at, name=f"{name} band")
    figure.add_scatter(
        x=x,
        y=mean,
        mode="lines",
        line=line,
        name=name,
        hovertemplate=f"%{{x}}: %{{y:.4g}}<extra>{name}</extra>",
        showlegend=False,
        row=at[0],
        col=at[1],
    )
