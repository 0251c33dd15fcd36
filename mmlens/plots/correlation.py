"""Figures of how alike scores are, and how soon they settle (MINER, stages 2 and 3).

Part of :mod:`mmlens.plots`, which offers them by name; kept apart for length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.masking_frames import ordered, styles_of, wrapped
from mmlens.plots.style import DIVERGING, GREY, DomainStyle, Row, checked_rows, finish, label, span

CORRELATION_COLUMNS = ("group", "score_a", "score_b", "pearson", "spearman")
CONVERGENCE_COLUMNS = ("n_samples", "group", "comparison", "jaccard", "correlation")
COMPARISONS = {
    "full": "with all samples<br>(these included)",
    "halves": "between two<br>disjoint halves",
}


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
    ticks: Row = {
        "tickvals": list(range(len(names))),
        "ticktext": [wrapped(name, 16) for name in names],
        "showgrid": False,
        "zeroline": False,
    }
    figure.update_xaxes(range=[-0.5, len(names) - 0.5], **ticks)
    figure.update_yaxes(range=[len(names) - 0.5, -0.5], **ticks)
    figure.update_layout(
        coloraxis={"colorscale": DIVERGING, "cmin": -1, "cmax": 1, "showscale": False}
    )
    finish(
        figure,
        "How alike the scores rank the neurons, by token group",
        "Over all layers and neurons; Pearson below the diagonal, Spearman above; - not defined",
        height=total + 185,
    )
    return figure.update_layout(margin={"t": 115, "b": 70})


def _correlation_map(
    figure: go.Figure,
    cells: Mapping[tuple[str, str, str], Row],
    group: str,
    names: Sequence[str],
    at: tuple[int, int],
) -> None:
    """One group's correlations as a map; nothing on the diagonal, a dash where there is none."""
    drawn = [
        [_correlation(cells, group, (i, a), (j, b)) for j, b in enumerate(names)]
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
        texttemplate="%{text}",
        textfont={"size": 12},
        customdata=[[_hover(cells.get((group, a, b)), a, b) for b in names] for a in names],
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=True,
        coloraxis="coloraxis",
        xgap=2,
        ygap=2,
        name=label(group),
        row=at[0],
        col=at[1],
    )
    _dashes(figure, drawn, at)


def _correlation(
    cells: Mapping[tuple[str, str, str], Row], group: str, a: tuple[int, str], b: tuple[int, str]
) -> float:
    """Spearman above the diagonal, Pearson below, 1 on it; NaN where there is none."""
    (i, first), (j, second) = a, b
    row = cells.get((group, first, second))
    return math.nan if row is None else float(row["spearman" if j > i else "pearson"])


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


def convergence_curves(
    convergence: pd.DataFrame, *, modalities: Sequence[str] | None = None
) -> go.Figure:
    """How soon importance and selection settle: against those of all samples, and between halves.

    Above, the Jaccard index of the selected neurons; below, the correlation of the combined
    importance; against samples (log scale). Left (comparison "full"): with all samples, these
    included; right ("halves"): two sets of samples that share none. Several rows of one place (draws)
    are averaged. A column ``chance``, the Jaccard index of random sets of these sizes, is drawn dotted
    where it is there. Columns: :data:`CONVERGENCE_COLUMNS`. ValueError for a missing column, an empty
    frame, an unknown comparison, or a group that ``modalities`` lacks.
    """
    rows = checked_rows(convergence, CONVERGENCE_COLUMNS, "convergence")
    if unknown := sorted({str(row["comparison"]) for row in rows} - set(COMPARISONS)):
        raise ValueError(f"A comparison is one of {list(COMPARISONS)}, {unknown[0]!r} was given.")
    order = ordered(rows, "group", modalities)
    styles = styles_of(modalities or order)
    present = [kind for kind in COMPARISONS if any(row["comparison"] == kind for row in rows)]
    figure = make_subplots(
        rows=2,
        cols=len(present),
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=0.07,
        column_titles=[COMPARISONS[kind] for kind in present],
    )
    figure.update_annotations(font={"size": 14}, yshift=4)
    for j, kind in enumerate(present, start=1):
        here = [row for row in rows if row["comparison"] == kind]
        for group in order:
            own = [row for row in here if row["group"] == group]
            for i, measure in enumerate(("jaccard", "correlation"), start=1):
                _curve(figure, own, measure, group, styles[group], (i, j))
        if all("chance" in row for row in here):
            _chance(figure, here, j)
    figure.update_xaxes(type="log", dtick="D2")
    figure.update_xaxes(title_text="samples (log scale)", row=2)
    figure.update_yaxes(zeroline=False)
    figure.update_yaxes(range=[-0.02, 1.04], dtick=0.2, row=1)
    lowest = min((row["correlation"] for row in rows if row["correlation"] < 0), default=0.0)
    figure.update_yaxes(range=[lowest - 0.02, 1.04], row=2)
    figure.update_yaxes(title_text="Jaccard index<br>of the sets", row=1, col=1)
    figure.update_yaxes(title_text="correlation<br>of importance", row=2, col=1)
    numbers = [row["n_samples"] for row in rows]
    finish(figure, "How many samples the importance needs", f"{span(numbers)} samples", height=700)
    return figure.update_layout(legend={"y": 1 + 48 / 420}, margin={"t": 220, "b": 60})


def _curve(
    figure: go.Figure,
    rows: Sequence[Row],
    measure: str,
    group: str,
    look: DomainStyle,
    at: tuple[int, int],
) -> None:
    """One group's measure against samples; a group without rows keeps its place in the legend."""
    x, y = _means(rows, measure)
    figure.add_scatter(
        x=x or [None],
        y=y or [None],
        mode="lines+markers",
        name="all together" if group == "all" else wrapped(group, 28, 1),
        legendgroup=group,
        showlegend=at == (1, 1),
        line={"color": look.colour, "dash": look.dash, "width": 2},
        marker={"color": look.colour, "symbol": look.symbol, "size": 9},
        hovertemplate="%{x:,} samples: %{y:.3f}",
        row=at[0],
        col=at[1],
    )


def _chance(figure: go.Figure, rows: Sequence[Row], column: int) -> None:
    """What random sets would share, mean over the groups."""
    x, y = _means(rows, "chance")
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        name="by chance (mean of the sets)",
        legendgroup="chance",
        showlegend=column == 1,
        line={"color": GREY, "dash": "dot", "width": 2},
        hovertemplate="%{x:,} samples: %{y:.3f}",
        row=1,
        col=column,
    )


def _means(rows: Sequence[Row], column: str) -> tuple[list[int], list[float | None]]:
    """Numbers of samples in order, and the mean of a column at each; None where none is a number."""
    by_number: dict[int, list[float]] = {}
    for row in rows:
        by_number.setdefault(int(row["n_samples"]), []).append(float(row[column]))
    found: list[float | None] = []
    for number in sorted(by_number):
        known = [value for value in by_number[number] if math.isfinite(value)]
        found.append(float(np.mean(known)) if known else None)
    return sorted(by_number), found
