"""Figures of how neuron sets overlap: a heat map with its numbers, and an UpSet plot.

Part of :mod:`mmlens.plots`, which offers them by name; kept apart for length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.style import (
    GREY,
    INK,
    PALE,
    checked_rows,
    domain_styles,
    finish,
    label,
    of_module,
)

OVERLAP_COLUMNS = ("module", "a", "b", "n_a", "n_b", "both", "share_of_b", "jaccard")
COMBINATION_COLUMNS = ("module", "domains", "n_domains", "n_neurons")
# One hue from white to dark: lightness alone tells the value, in greyscale too.
SEQUENTIAL = [[0.0, "#ffffff"], [0.5, "#8fb8d8"], [1.0, "#08306b"]]


def overlap_heatmap(
    overlaps: pd.DataFrame, module: str | None = None, *, domains: Sequence[str] | None = None
) -> go.Figure:
    """How far the sets of one module overlap: |A & B| / |B| at the left, Jaccard at the right.

    Row A, column B; the number stands in every cell, a dash where it is not defined. Columns:
    :data:`OVERLAP_COLUMNS`, as :func:`mmlens.selection.overlap.overlap_table` gives them. ``module`` chooses
    among several. ValueError for a missing column, an absent module, or several and none chosen.
    """
    rows, module = of_module(checked_rows(overlaps, OVERLAP_COLUMNS, "overlaps"), module)
    order = list(domains) if domains is not None else list(dict.fromkeys(r["a"] for r in rows))
    cells = {(row["a"], row["b"]): row for row in rows}
    sizes = {row["a"]: int(row["n_a"]) for row in rows}
    if missing := [one for one in order if one not in sizes]:
        raise ValueError(f"The overlaps frame has no {missing[0]!r}; it has {sorted(sizes)}.")
    names = [label(one) for one in order]
    figure = make_subplots(
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.04,
        subplot_titles=["share of column's set: |A ∩ B| / |B|", "Jaccard: |A ∩ B| / |A ∪ B|"],
    )
    for column, measure in enumerate(("share_of_b", "jaccard"), start=1):
        values = [[float(cells[a, b][measure]) for b in order] for a in order]
        both = [[int(cells[a, b]["both"]) for b in order] for a in order]
        figure.add_heatmap(
            z=values,
            x=names,
            y=[f"{name} ({sizes[one]:,})" for name, one in zip(names, order, strict=True)],
            text=[["-" if math.isnan(v) else f"{v:.2f}" for v in line] for line in values],
            texttemplate="%{text}",
            textfont={"size": 13},
            customdata=both,
            zmin=0,
            zmax=1,
            colorscale=SEQUENTIAL,
            showscale=column == 2,
            colorbar={"title": {"text": "share", "side": "right"}, "thickness": 14},
            xgap=2,
            ygap=2,
            name=measure,
            hovertemplate="A = %{y}, B = %{x}: %{z:.3f}<br>%{customdata} neurons in both"
            "<extra></extra>",
            row=1,
            col=column,
        )
    figure.update_annotations(font={"size": 14}, yshift=4)
    figure.update_xaxes(title_text="B", showgrid=False, type="category")
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    figure.update_yaxes(title_text="A (its neurons)", col=1)
    finish(
        figure,
        f"How far the sets share their neurons, {label(module)}",
        f"{len(order)} sets of {min(sizes[o] for o in order):,} to "
        f"{max(sizes[o] for o in order):,} neurons; - where a set is empty",
        height=max(470, 230 + 36 * len(order)),
    )
    return figure.update_layout(margin={"t": 110})


def upset(
    combinations: pd.DataFrame,
    module: str | None = None,
    *,
    domains: Sequence[str] | None = None,
    most: int = 20,
) -> go.Figure:
    """UpSet plot: how many neurons are in exactly which sets.

    A bar per combination, largest first; the dots below it, joined by a line, are its sets. At the
    left the size of every set. Columns: :data:`COMBINATION_COLUMNS`, as
    :func:`mmlens.selection.overlap.combinations_table` gives them. At most ``most`` combinations are drawn; the
    subtitle says what is left out. ValueError for a missing column, an absent module, several and
    none chosen, or a name outside ``domains``.
    """
    rows, module = of_module(
        checked_rows(combinations, COMBINATION_COLUMNS, "combinations"), module
    )
    members = [str(row["domains"]).split(";") for row in rows]
    order = list(domains) if domains is not None else sorted({d for one in members for d in one})
    if unknown := sorted({d for one in members for d in one} - set(order)):
        raise ValueError(f"The combinations have the name {unknown[0]!r}, which is not in {order}.")
    styles = domain_styles(order)
    counts = [int(row["n_neurons"]) for row in rows]
    sizes = {d: sum(c for c, one in zip(counts, members, strict=True) if d in one) for d in order}
    shown = sorted(range(len(rows)), key=lambda i: -counts[i])[:most]
    figure = make_subplots(
        rows=2,
        cols=2,
        specs=[[None, {}], [{}, {}]],
        column_widths=[0.24, 0.76],
        row_heights=[0.58, 0.42],
        horizontal_spacing=0.02,
        vertical_spacing=0.03,
    )
    figure.add_bar(
        x=list(range(len(shown))),
        y=[counts[i] for i in shown],
        text=[f"{counts[i]:,}" for i in shown],
        textposition="outside",
        textangle=0,
        cliponaxis=False,
        marker={"color": INK},
        name="intersections",
        customdata=[label(", ".join(members[i])) for i in shown],
        hovertemplate="%{y} neurons in exactly: %{customdata}<extra></extra>",
        row=1,
        col=2,
    )
    figure.add_bar(
        x=[sizes[d] for d in order],
        y=list(range(len(order))),
        orientation="h",
        text=[f"{sizes[d]:,}" for d in order],
        textposition="outside",
        cliponaxis=False,
        marker={
            "color": [styles[d].colour for d in order],
            "line": {"color": INK, "width": 0.7},
        },
        name="sizes",
        customdata=[label(d) for d in order],
        hovertemplate="%{customdata}: %{x} neurons<extra></extra>",
        row=2,
        col=1,
    )
    _dots(figure, [[order.index(d) for d in members[i]] for i in shown], len(order))
    places = {"range": [len(order) - 0.5, -0.5], "tickvals": list(range(len(order)))}
    across = {"range": [-0.6, len(shown) - 0.4], "showgrid": False, "showticklabels": False}
    figure.update_xaxes(ticks="", zeroline=False, col=2, **across)
    figure.update_yaxes(
        title_text="neurons", range=[0, 1.18 * max(counts[i] for i in shown)], row=1, col=2
    )
    figure.update_yaxes(ticktext=[label(d) for d in order], showgrid=False, row=2, col=1, **places)
    figure.update_yaxes(
        showticklabels=False, ticks="", showgrid=False, zeroline=False, row=2, col=2, **places
    )
    figure.update_xaxes(
        title_text="neurons in the set",
        range=[1.45 * max(*sizes.values(), 1), 0],
        nticks=4,
        row=2,
        col=1,
    )
    figure.update_xaxes(title_text="combination of sets", row=2, col=2)
    figure.update_layout(showlegend=False, bargap=0.35)
    total, left = sum(counts), sum(counts) - sum(counts[i] for i in shown)
    rest = (
        f"; {len(rows) - len(shown)} smaller combinations with {left:,} neurons not shown"
        if left
        else ""
    )
    finish(
        figure,
        f"Which sets the neurons belong to, {label(module)}",
        f"{total:,} neurons, each counted once, under exactly the sets with a dot{rest}",
        height=max(520, 330 + 34 * len(order)),
    )
    return figure.update_layout(margin={"t": 90})


def _dots(figure: go.Figure, members: Sequence[Sequence[int]], sets: int) -> None:
    """The dot matrix: pale everywhere, ink and joined where a set is part of the combination."""
    grid = np.array([(x, y) for x in range(len(members)) for y in range(sets)])
    figure.add_scatter(
        x=grid[:, 0].tolist(),
        y=grid[:, 1].tolist(),
        mode="markers",
        marker={"symbol": "circle-open", "size": 9, "color": PALE},
        name="not in",
        hoverinfo="skip",
        row=2,
        col=2,
    )
    xs: list[float | None] = []
    ys: list[float | None] = []
    for x, present in enumerate(members):
        xs += [x] * len(present) + [None]  # None ends the line of one combination
        ys += [*sorted(present), None]
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="lines+markers",
        marker={"symbol": "circle", "size": 11, "color": INK},
        line={"color": INK, "width": 2},
        name="in",
        hoverinfo="skip",
        row=2,
        col=2,
    )
    for y in range(0, sets, 2):  # the panel below at the right has the third axes
        figure.add_shape(
            x0=0,
            x1=1,
            y0=y - 0.5,
            y1=y + 0.5,
            xref="x3 domain",
            yref="y3",
            fillcolor=GREY,
            opacity=0.08,
            line_width=0,
            layer="below",
        )
