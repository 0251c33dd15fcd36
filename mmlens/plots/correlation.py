"""How alike the importance scores rank the neurons (MINER, stage 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.frames import CORRELATION_COLUMNS, Row, checked_rows, ordered
from mmlens.plots.style import CELLS, DIVERGING, finish, label, named_ticks, wrapped


def score_correlations(
    correlations: pd.DataFrame,
    *,
    scores: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> go.Figure:
    """How alike the scores rank the neurons: a map per group, Pearson below, Spearman above.

    Columns: :data:`CORRELATION_COLUMNS`, as :func:`mmlens.importance.correlation.correlate_scores` gives
    them. A dash where a score has no correlation (it is the same for every neuron). ``scores`` and
    ``groups`` give orders. ValueError for a missing column, an empty frame, or a name an order lacks.
    """
    rows = checked_rows(correlations, CORRELATION_COLUMNS, "correlations")
    names, facets = ordered(rows, "score_a", scores), ordered(rows, "group", groups)
    cells = {(row["group"], row["score_a"], row["score_b"]): row for row in rows}
    columns = min(2, len(facets))
    panels = math.ceil(len(facets) / columns)
    each = 44 * len(names) + 20
    gap = 58 + 6 * max(len(name) for name in names)
    total = each * panels + gap * (panels - 1)
    figure = make_subplots(
        rows=panels,
        cols=columns,
        shared_yaxes=True,
        subplot_titles=[wrapped(group, 20, 1) for group in facets],
        horizontal_spacing=0.04,
        vertical_spacing=gap / total if panels > 1 else 0,
    )
    figure.update_annotations(font={"size": 14}, yshift=2)
    for k, group in enumerate(facets):
        _correlation_map(figure, cells, group, names, (k // columns + 1, k % columns + 1))
    ticks = named_ticks([wrapped(name, 16) for name in names])
    ticks |= {"showgrid": False, "zeroline": False}
    figure.update_xaxes(range=[-0.5, len(names) - 0.5], **ticks)
    figure.update_yaxes(range=[len(names) - 0.5, -0.5], **ticks)
    return finish(
        figure,
        "How alike the scores rank the neurons, by token group",
        "Over all layers and neurons; Pearson below the diagonal, Spearman above; - not defined",
        height=total + 185,
        margin={"t": 115, "b": 70},
        coloraxis={"colorscale": DIVERGING, "cmin": -1, "cmax": 1, "showscale": False},
    )


def _correlation_map(
    figure: go.Figure,
    cells: Mapping[tuple[str, str, str], Row],
    group: str,
    names: Sequence[str],
    at: tuple[int, int],
) -> None:
    """One group's correlations as a map; nothing on the diagonal, a dash where there is none."""
    drawn = [
        [_correlation(cells.get((group, a, b)), above=j > i) for j, b in enumerate(names)]
        for i, a in enumerate(names)
    ]
    figure.add_heatmap(
        z=[
            [None if i == j or math.isnan(v) else v for j, v in enumerate(line)]
            for i, line in enumerate(drawn)
        ],
        x=list(range(len(names))),
        y=list(range(len(names))),
        text=[
            ["" if i == j else _digits(v) for j, v in enumerate(line)]
            for i, line in enumerate(drawn)
        ],
        textfont={"size": 12},
        customdata=[[_hover(cells.get((group, a, b)), a, b) for b in names] for a in names],
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=True,
        coloraxis="coloraxis",
        name=label(group),
        row=at[0],
        col=at[1],
        **CELLS,
    )
    _dashes(figure, drawn, at)


def _correlation(row: Row | None, above: bool) -> float:
    """Spearman above the diagonal, Pearson below and on it; NaN where there is none."""
    return math.nan if row is None else float(row["spearman" if above else "pearson"])


def _digits(value: float) -> str:
    """Two digits; three where two would make it 1, since scores that are nearly one another matter."""
    if math.isnan(value):
        return ""
    if abs(value) < 0.995:
        return f"{value:.2f}"
    return f"{value:.3f}" if abs(value) < 0.9995 else f"{round(value)}.0"


def _hover(row: Row | None, a: str, b: str) -> str:
    text = f"{label(a)}, {label(b)}"
    if row is None:
        return text + ": not in the frame"
    said = row.get("note")  # an empty note comes back from a file as not-a-number
    note = f"<br>{label(said)}" if isinstance(said, str) and said else ""
    return f"{text}<br>Pearson {row['pearson']:.8f}<br>Spearman {row['spearman']:.8f}{note}"


def _dashes(figure: go.Figure, drawn: Sequence[Sequence[float]], at: tuple[int, int]) -> None:
    """A dash in cells without a correlation: text of a heat map is not drawn on a gap."""
    empty = [
        (j, i)
        for i, line in enumerate(drawn)
        for j, v in enumerate(line)
        if i != j and math.isnan(v)
    ]
    if empty:
        figure.add_scatter(
            x=[x for x, _ in empty],
            y=[y for _, y in empty],
            mode="text",
            text=["-"] * len(empty),
            name="not defined",
            showlegend=False,
            hoverinfo="skip",
            row=at[0],
            col=at[1],
        )
