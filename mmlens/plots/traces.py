"""What figures of curves share: bands around lines, and the looks of controls."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from mmlens.plots.frames import Row

# kind -> name, dash, shade of the band. Bands differ in lightness, lines in dash.
CONTROL_LOOKS = {
    "random": ("random control ± sd over its sets", "dash", "rgba(107,114,128,0.20)"),
    "matched": ("matched control ± sd over its sets", "dot", "rgba(31,35,40,0.30)"),
}


def band(
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
    if not len(x):
        return
    low = [m - s for m, s in zip(mean, spread, strict=True)]
    high = [m + s for m, s in zip(mean, spread, strict=True)]
    row, col = at
    figure.add_scatter(
        x=[*x, *list(x)[::-1]],
        y=[*high, *low[::-1]],
        fill="toself",
        fillcolor=shade,
        line={"width": 0},
        mode="lines",
        name=f"{name} band",
        hoverinfo="skip",
        showlegend=False,
        row=row,
        col=col,
    )
    figure.add_scatter(
        x=list(x),
        y=list(mean),
        mode="lines",
        line=line,
        name=name,
        hovertemplate=f"%{{x}}: %{{y:.4g}}<extra>{name}</extra>",
        showlegend=False,
        row=row,
        col=col,
    )
