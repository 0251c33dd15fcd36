"""How soon importance and selection settle as samples are added (MINER, stage 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.frames import CONVERGENCE_COLUMNS, Row, checked_rows, ordered
from mmlens.plots.numbers import span
from mmlens.plots.style import finish, styles_of, wrapped
from mmlens.plots.traces import CHANCE_LINE, curve

_TITLES = {
    "full": "with all samples<br>(these included)",
    "halves": "between two<br>disjoint halves",
}
_HOVER = "%{x:,} samples: %{y:.3f}"


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
    if unknown := sorted({str(row["comparison"]) for row in rows} - set(_TITLES)):
        raise ValueError(f"A comparison is one of {list(_TITLES)}, {unknown[0]!r} was given.")
    order = ordered(rows, "group", modalities)
    styles = styles_of(modalities or order)
    present = [kind for kind in _TITLES if any(row["comparison"] == kind for row in rows)]
    figure = make_subplots(
        rows=2,
        cols=len(present),
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=0.07,
        column_titles=[_TITLES[kind] for kind in present],
    )
    figure.update_annotations(font={"size": 14}, yshift=4)
    for j, kind in enumerate(present, start=1):
        here = [row for row in rows if row["comparison"] == kind]
        for group in order:
            own = [row for row in here if row["group"] == group]
            look = styles[group]
            line = {"color": look.colour, "dash": look.dash, "width": 2}
            marker = {"color": look.colour, "symbol": look.symbol, "size": 9}
            name = "all together" if group == "all" else wrapped(group, 28, 1)
            for i, measure in enumerate(("jaccard", "correlation"), start=1):
                x, y = _means(own, measure)
                # A group without rows keeps its place in the legend.
                curve(figure, x or [None], y or [None], name, group, _HOVER, line, (i, j), marker)
        if all("chance" in row for row in here):
            x, y = _means(here, "chance")
            name = "by chance (mean of the sets)"
            curve(figure, x, y, name, "chance", _HOVER, CHANCE_LINE, (1, j))
    _axes(figure, rows)
    numbers = [row["n_samples"] for row in rows]
    return finish(
        figure,
        "How many samples the importance needs",
        f"{span(numbers)} samples",
        height=700,
        legend={"y": 1 + 48 / 420},
        margin={"t": 220, "b": 60},
    )


def _axes(figure: go.Figure, rows: Sequence[Row]) -> None:
    """Samples on a log scale; Jaccard from 0 to 1, correlation from 0 or its least value to 1."""
    figure.update_xaxes(type="log", dtick="D2")
    figure.update_xaxes(title_text="samples (log scale)", row=2)
    figure.update_yaxes(zeroline=False)
    figure.update_yaxes(range=[-0.02, 1.04], dtick=0.2, row=1)
    lowest = min((row["correlation"] for row in rows if row["correlation"] < 0), default=0.0)
    figure.update_yaxes(range=[lowest - 0.02, 1.04], row=2)
    figure.update_yaxes(title_text="Jaccard index<br>of the sets", row=1, col=1)
    figure.update_yaxes(title_text="correlation<br>of importance", row=2, col=1)


def _means(rows: Sequence[Row], column: str) -> tuple[list[int], list[float | None]]:
    """Numbers of samples in order, and the mean of a column at each; None where none is a number."""
    by_number: dict[int, list[float]] = {}
    for row in rows:
        known = by_number.setdefault(int(row["n_samples"]), [])
        if math.isfinite(row[column]):
            known.append(float(row[column]))
    numbers = sorted(by_number)
    return numbers, [float(np.mean(by_number[n])) if by_number[n] else None for n in numbers]
