"""Two methods of finding neurons at equal budget: what their neurons cost, and how many they share.

The comparison of MMNeuron's neurons, found by entropy, with MINER's, found by importance, is ours: no
paper has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from mmlens.plots.cost_rows import cost_figure, finish_rows, slots
from mmlens.plots.effect_marks import INTERVAL_MARKS, difference_trace, mark_legend, scale_points
from mmlens.plots.frames import (
    METHOD_COLUMNS,
    METHOD_OVERLAP_COLUMNS,
    PAIR_COLUMNS,
    Row,
    checked_rows,
    in_order,
    ordered,
)
from mmlens.plots.numbers import span
from mmlens.plots.style import CELLS, SEQUENTIAL, domain_styles, finish, label, named_ticks, wrapped


def methods_comparison(
    methods: pd.DataFrame,
    control: str = "matched random",
    *,
    order: Sequence[str] | None = None,
    evaluated: Sequence[str] | None = None,
) -> go.Figure:
    """What masking the neurons of each method costs, at equal budget, per data set or domain.

    Left: drop in accuracy (baseline - masked), and that of the control (baseline - control_mean) with
    its standard deviation where there is a column ``control_sd``. Right: the difference of the two with
    its 95% interval, filled where it excludes 0; "no control" where it is not a number. Percentage
    points. Columns: :data:`METHOD_COLUMNS`. ``control`` is what the control is called; ``order`` gives
    the methods' order and colours. ValueError for a missing column, an empty frame, or a value that an
    order lacks.
    """
    rows = checked_rows(methods, METHOD_COLUMNS, "methods")
    names, asked = ordered(rows, "method", order), ordered(rows, "evaluated", evaluated)
    by_key = {(row["method"], row["evaluated"]): row for row in rows}
    drawn = [
        row
        | {
            "owner": "all questions" if e == "all" else e,
            "inner": f"{method} ({int(row['n_neurons']):,})",
            "mask": method,
            "drop": row["baseline"] - row["masked"],
            "control_drop": row["baseline"] - row["control_mean"],
            "control_sd": row.get("control_sd", math.nan),
        }
        for e in asked
        for method in names
        if (row := by_key.get((method, e)))
    ]
    subtitle = (
        f"{span([r['n_neurons'] for r in rows])} neurons masked (in brackets), "
        f"{span([r['n_questions'] for r in rows])} questions; control: {label(control)}"
    )
    title = "Methods of finding neurons, at equal budget"
    return cost_figure(drawn, order or names, control, title, subtitle)


def method_pairs(pairs: pd.DataFrame, *, evaluated: Sequence[str] | None = None) -> go.Figure:
    """Two methods' neurons on the same questions: how much more the first's cost than the second's.

    Difference of the drops in accuracy, method_a minus method_b, in percentage points, with its 95%
    interval; filled where it excludes 0. Columns: :data:`mmlens.plots.PAIR_COLUMNS`. ValueError for a
    missing column, an empty frame, or a data set that ``evaluated`` lacks.
    """
    rows = checked_rows(pairs, PAIR_COLUMNS, "method pairs")
    drawn = [
        row
        | {
            "owner": "all questions" if asked == "all" else asked,
            "inner": f"{row['method_a']} - {row['method_b']}",
        }
        for asked in ordered(rows, "evaluated", evaluated)
        for row in rows
        if row["evaluated"] == asked
    ]
    heights = [i for i, (_, _, row) in enumerate(slots(drawn)) if row is not None]
    styles = domain_styles(in_order(drawn, "inner"))
    hover = [f"{label(row['owner'])}: {label(row['inner'])}" for row in drawn]
    shared: Row = {"y": heights, "text": hover, "mode": "markers", "showlegend": False}
    shared |= {"hovertemplate": "%{text}<br>%{x:.2f} points<extra></extra>"}
    figure = go.Figure()
    figure.set_subplots(cols=1)
    colours = [styles[str(row["inner"])].colour for row in drawn]
    difference_trace(figure, drawn, colours, shared, column=1)
    mark_legend(figure, INTERVAL_MARKS)
    scale_points(figure, drawn, ("difference", "low", "high"))
    figure.update_xaxes(title_text="drop of the first minus<br>drop of the second (points)")
    return finish_rows(
        figure,
        drawn,
        "Which method's neurons cost more",
        "Same questions, paired; right of 0 the first method's neurons cost more",
    )


def method_overlap(
    overlap: pd.DataFrame,
    *,
    domains: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
) -> go.Figure:
    """How many of each domain's neurons (rows) are among each modality's (columns), against chance.

    A cell has the number of neurons in both sets and, in brackets, the number that random sets of these
    sizes would share; its colour is their ratio, white where nothing is shared. Columns:
    :data:`METHOD_OVERLAP_COLUMNS`, as :func:`mmlens.selection.overlap.cross_table` gives them. ValueError for a
    missing column, an empty frame, or a name that an order lacks.
    """
    rows = checked_rows(overlap, METHOD_OVERLAP_COLUMNS, "method overlap")
    down, across = ordered(rows, "domain", domains), ordered(rows, "modality", modalities)
    by_key = {(row["domain"], row["modality"]): row for row in rows}
    here = [[by_key.get((d, m)) for m in across] for d in down]
    ratios = [[_times_chance(one) for one in line] for line in here]
    figure = go.Figure(
        _overlap_map(here, ratios, [[f"{label(d)}, {label(m)}" for m in across] for d in down])
    )
    domain_sizes = {r["domain"]: int(r["n_domain"]) for r in rows}
    modality_sizes = {r["modality"]: int(r["n_modality"]) for r in rows}
    look: Row = {"showgrid": False, "zeroline": False}
    figure.update_xaxes(
        title_text="by importance: modality (its neurons)",
        **named_ticks([f"{wrapped(m, 16)}<br>({modality_sizes[m]:,})" for m in across]),
        **look,
    )
    figure.update_yaxes(
        title_text="by entropy: domain (its neurons)",
        **named_ticks([f"{wrapped(d, 16)} ({domain_sizes[d]:,})" for d in down]),
        range=[len(down) - 0.5, -0.5],
        **look,
    )
    return finish(
        figure,
        "How many of one method's neurons the other finds too",
        "Neurons in both sets; in brackets as many as random sets of these sizes share.<br>"
        "The darker, the more times chance",
        height=225 + 46 * len(down),
        margin={"t": 105, "b": 120},
    )


def _overlap_map(
    rows: Sequence[Sequence[Row | None]],
    ratios: Sequence[Sequence[float | None]],
    names: Sequence[Sequence[str]],
) -> go.Heatmap:
    """Neurons in both sets as text, how many times chance that is as colour."""
    known = [one for line in ratios for one in line if one is not None]
    return go.Heatmap(
        z=ratios,
        text=[[_both(one) for one in line] for line in rows],
        textfont={"size": 12},
        customdata=names,
        hovertemplate="%{customdata}: %{z:.3g} times chance<extra></extra>",
        hoverongaps=False,
        zmin=0,
        zmax=max(known, default=1.0) or 1.0,
        colorscale=SEQUENTIAL,
        showscale=False,
        **CELLS,
    )


def _times_chance(row: Row | None) -> float | None:
    if row is None or not row["expected"] > 0:
        return None
    return row["both"] / row["expected"]


def _both(row: Row | None) -> str:
    if row is None:
        return ""
    digits = 0 if row["expected"] >= 100 else 1
    expected = "n/a" if math.isnan(row["expected"]) else f"{row['expected']:,.{digits}f}"
    return f"{int(row['both']):,}<br>({expected})"
