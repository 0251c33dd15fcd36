"""Maps of what masking costs: strategies by weights of the scores, data mined by data asked about.

Drawn from the masking table, as :mod:`mmlens.plots.masking`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.frames import Row, excludes_zero, ordered
from mmlens.plots.masking_frames import against, described, masking_rows, modality_name
from mmlens.plots.numbers import points
from mmlens.plots.style import CELLS, INK, SEQUENTIAL, finish, label, named_ticks, wrapped


def masking_grid(
    masking: pd.DataFrame,
    control: str = "matched",
    *,
    modalities: Sequence[str] | None = None,
    strategies: Sequence[str] | None = None,
    weights: Sequence[str] | None = None,
) -> go.Figure:
    """Weights of the scores (rows) by strategy (columns), a map per modality (the paper's Table 4).

    A cell has the accuracy under the mask (per cent) and its change from the untouched model (points);
    the colour is what is lost. A star: the 95% interval of the difference from the control excludes 0;
    a ring: no control was run for this cell. ``modalities``: those drawn, in this order (default: all
    there are). ``strategies`` and ``weights`` give orders. Errors as
    :func:`mmlens.plots.masking_effects`.
    """
    axes = ("weights", "strategy")
    rows = _rows(masking, axes, control, modalities)
    down, across = ordered(rows, "weights", weights), ordered(rows, "strategy", strategies)
    figure = _maps(rows, (axes[0], down), (axes[1], across), modalities)
    title = "Strategy and weights of the scores: what is lost"
    return _titled(figure, rows, control, title, axes)


def mining_matrix(
    masking: pd.DataFrame,
    control: str = "matched",
    *,
    modalities: Sequence[str] | None = None,
    data_sets: Sequence[str] | None = None,
) -> go.Figure:
    """Data mined (rows) by questions (columns), a map per modality (the paper's Table 2).

    Cells as in :func:`masking_grid`; a frame marks those where the neurons were found on the data
    that the questions are of. ``data_sets`` gives the order of both. Errors as there.
    """
    axes = ("mined", "evaluated")
    rows = _rows(masking, axes, control, modalities)
    down, across = (ordered(rows, one, data_sets) for one in axes)
    figure = _maps(rows, (axes[0], down), (axes[1], across), modalities, framed=True)
    title = "Neurons mined on one data set, masked on another"
    return _titled(figure, rows, control, title, axes)


def _rows(
    masking: pd.DataFrame, axes: Sequence[str], control: str, modalities: Sequence[str] | None
) -> list[Row]:
    """Rows against the control, of these modalities. ValueError for one that is not there."""
    rows = against(masking_rows(masking, ("modality", *axes)), control)
    present = {row["modality"] for row in rows}
    if missing := [one for one in modalities or () if one not in present]:
        raise ValueError(
            f"The masking frame has the modalities {sorted(present)}, and {missing[0]!r} was asked for."
        )
    return [row for row in rows if modalities is None or row["modality"] in modalities]


def _maps(
    rows: Sequence[Row],
    down: tuple[str, Sequence[str]],
    across: tuple[str, Sequence[str]],
    modalities: Sequence[str] | None,
    *,
    framed: bool = False,
) -> go.Figure:
    """Maps below one another, one per modality, of one colour scale: what masking costs."""
    facets = list(modalities) if modalities is not None else ordered(rows, "modality")
    (row_key, row_values), (column_key, column_values) = down, across
    cells = {(r["modality"], str(r[row_key]), str(r[column_key])): r for r in rows}
    each = 46 * len(row_values)
    # Room for names of columns, which stand aslant where they are long or the window narrow.
    gap = 50 + 5 * max(len(wrapped(_words(one), 16, 1)) for one in column_values)
    total = each * len(facets) + gap * (len(facets) - 1)
    figure = make_subplots(
        rows=len(facets),
        shared_xaxes=True,
        subplot_titles=[modality_name(f"{label(m)} neurons" if m != "all" else m) for m in facets],
        vertical_spacing=gap / total if len(facets) > 1 else 0,
    )
    figure.update_annotations(x=0, xanchor="left", font={"size": 14}, yshift=2)
    some = any(row["control"] for row in rows)
    lost = [100 * row["drop"] for row in rows if math.isfinite(row["drop"])] or [0.0]
    for i, facet in enumerate(facets, start=1):
        here = [[cells.get((facet, r, c)) for c in column_values] for r in row_values]
        names = [[f"{label(r)}, {label(c)}" for c in column_values] for r in row_values]
        _map(figure, here, names, label(facet), i, some)
        for name in row_values if framed else ():
            if name in column_values:
                _frame(figure, list(column_values).index(name), list(row_values).index(name), i)
    _name_axes(figure, down, across, len(facets))
    figure.update_layout(
        height=total + 235,
        coloraxis={
            "colorscale": SEQUENTIAL,
            "cmin": min(0.0, *lost),
            "cmax": max(1e-9, *lost),
            "showscale": False,  # every cell says its number, and a bar takes width from them
        },
    )
    return figure


def _name_axes(
    figure: go.Figure, down: tuple[str, Sequence[str]], across: tuple[str, Sequence[str]], maps: int
) -> None:
    """The columns' values below every map, the names of both columns at the outermost alone."""
    (row_key, row_values), (column_key, column_values) = down, across
    figure.update_xaxes(**_ticks([_words(one) for one in column_values]))
    figure.update_xaxes(showticklabels=True)
    figure.update_yaxes(**_ticks([_words(one) for one in row_values]))
    figure.update_yaxes(range=[len(row_values) - 0.5, -0.5])
    names = {"weights": "weights of the scores", "mined": "mined on", "evaluated": "questions of"}
    figure.update_xaxes(title_text=names.get(column_key, column_key), row=maps)
    figure.update_yaxes(title_text=names.get(row_key, row_key))


def _map(
    figure: go.Figure,
    cells: Sequence[Sequence[Row | None]],
    names: Sequence[Sequence[str]],
    name: str,
    at: int,
    some_controls: bool,
) -> None:
    """One map: what is lost as colour, accuracy and change as text."""
    figure.add_heatmap(
        z=[[None if one is None else 100 * one["drop"] for one in line] for line in cells],
        text=[[_cell(one, some_controls) for one in line] for line in cells],
        textfont={"size": 12},
        customdata=[
            [said + _hover(one) for said, one in zip(*pair, strict=True)]
            for pair in zip(names, cells, strict=True)
        ],
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=False,
        coloraxis="coloraxis",
        name=name,
        row=at,
        col=1,
        **CELLS,
    )


def _frame(figure: go.Figure, x: int, y: int, at: int) -> None:
    """A frame around one cell."""
    figure.add_shape(
        x0=x - 0.495,
        x1=x + 0.495,
        y0=y - 0.47,
        y1=y + 0.47,
        line={"color": INK, "width": 2.5},
        row=at,
        col=1,
    )


def _words(value: str) -> str:
    return "all data" if value == "all" else value


def _ticks(names: Sequence[str]) -> Row:
    look = {"range": [-0.5, len(names) - 0.5], "showgrid": False, "zeroline": False}
    return named_ticks([wrapped(name, 16) for name in names]) | look


def _cell(row: Row | None, some_controls: bool) -> str:
    """Accuracy, change and sign of one cell."""
    if row is None:
        return ""
    sign = "*" if excludes_zero(row) else ""
    sign = "°" if some_controls and not row["control"] else sign
    return f"{points(row['masked'])}<br>{points(-row['drop'], sign=True)}{sign}"


def _hover(row: Row | None) -> str:
    if row is None:
        return ": not run"
    return (
        f"<br>{row['n_neurons']} neurons, {row['n_questions']} questions<br>accuracy "
        f"{points(row['baseline'])}% to {points(row['masked'])}<br>beyond the control: "
        f"{points(row['difference'], sign=True)} [{points(row['low'])}, {points(row['high'])}] points"
    )


def _titled(
    figure: go.Figure, rows: Sequence[Row], control: str, title: str, axes: Sequence[str]
) -> go.Figure:
    """Title, subtitle, room."""
    bare = not any(row["control"] for row in rows)
    signs = "" if bare else f"; * interval against {label(control)} excludes 0"
    ring = "; \u00b0 no control" if signs and not all(row["control"] for row in rows) else ""
    common = described(rows, control, (*axes, "modality")).replace(";<br>", "; ")
    subtitle = f"Masked accuracy (%), below it the change (points){signs}{ring}<br>{common}"
    return finish(figure, title, subtitle, figure.layout.height, margin={"t": 125, "b": 110})
