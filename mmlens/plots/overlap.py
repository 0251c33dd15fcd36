"""How far neuron sets overlap, as a heat map with its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.frames import OVERLAP_COLUMNS, Row, checked_rows, of_module
from mmlens.plots.style import CELLS, SEQUENTIAL, finish, label


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
    figure = make_subplots(
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.04,
        subplot_titles=["share of column's set: |A ∩ B| / |B|", "Jaccard: |A ∩ B| / |A ∪ B|"],
    )
    for column, measure in enumerate(("share_of_b", "jaccard"), start=1):
        drawn = [[cells[a, b] for b in order] for a in order]
        _map(figure, drawn, measure, column)
    figure.update_annotations(font={"size": 14}, yshift=4)
    figure.update_xaxes(title_text="B", showgrid=False, type="category")
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    figure.update_yaxes(title_text="A (its neurons)", col=1)
    return finish(
        figure,
        f"How far the sets share their neurons, {label(module)}",
        f"{len(order)} sets of {min(sizes[o] for o in order):,} to "
        f"{max(sizes[o] for o in order):,} neurons; - where a set is empty",
        height=max(470, 230 + 36 * len(order)),
        margin={"t": 110},
    )


def _map(figure: go.Figure, rows: Sequence[Sequence[Row]], measure: str, column: int) -> None:
    """One measure of every pair of sets, with its number in the cell."""
    values = [[float(row[measure]) for row in line] for line in rows]
    figure.add_heatmap(
        z=values,
        x=[label(row["b"]) for row in rows[0]],
        y=[f"{label(line[0]['a'])} ({int(line[0]['n_a']):,})" for line in rows],
        text=[["-" if math.isnan(v) else f"{v:.2f}" for v in line] for line in values],
        textfont={"size": 13},
        customdata=[[int(row["both"]) for row in line] for line in rows],
        zmin=0,
        zmax=1,
        colorscale=SEQUENTIAL,
        showscale=column == 2,
        colorbar={"title": {"text": "share", "side": "right"}, "thickness": 14},
        name=measure,
        hovertemplate="A = %{y}, B = %{x}: %{z:.3f}<br>%{customdata} neurons in both<extra></extra>",
        row=1,
        col=column,
        **CELLS,
    )
