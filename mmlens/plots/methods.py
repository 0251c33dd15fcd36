"""Figures that compare ways of finding neurons: methods at equal budget, ways of splitting tokens.

Part of :mod:`mmlens.plots`, which offers them by name. The comparison of MMNeuron's neurons, found by
entropy, with MINER's, found by importance, is ours: no paper has it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from mmlens.plots.cost_rows import MARGINS, cost_rows, rows_height, slots
from mmlens.plots.effect_marks import bands, difference_trace
from mmlens.plots.frames import (
    METHOD_COLUMNS,
    METHOD_OVERLAP_COLUMNS,
    PAIR_COLUMNS,
    Row,
    checked_rows,
    ordered,
)
from mmlens.plots.masking_frames import against, choose, control_text, masking_rows, setting_text
from mmlens.plots.numbers import span
from mmlens.plots.style import INK, SEQUENTIAL, domain_styles, finish, label, styles_of, wrapped

SPLITS = {
    "prompt": "prompt (one set)",
    "special_text_as_one": "special and text as one",
    "special_text_separate": "special and text separate",
}


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
    cells = {(row["method"], row["evaluated"]): row for row in rows}
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
        if (row := cells.get((method, e)))
    ]
    styles = styles_of(order or names)
    figure = cost_rows(drawn, [styles[row["mask"]].colour for row in drawn], control)
    return finish(
        figure,
        "Methods of finding neurons, at equal budget",
        f"{span([r['n_neurons'] for r in rows])} neurons masked (in brackets), "
        f"{span([r['n_questions'] for r in rows])} questions; control: {label(control)}",
        height=rows_height(drawn),
    )


def method_pairs(pairs: pd.DataFrame, *, evaluated: Sequence[str] | None = None) -> go.Figure:
    """Two methods' neurons on the same questions: how much more the first's cost than the second's.

    Difference of the drops in accuracy, method_a minus method_b, in percentage points, with its 95%
    interval; filled where it excludes 0. Columns: :data:`PAIR_COLUMNS`. ValueError for a missing
    column, an empty frame, or a data set that ``evaluated`` lacks.
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
    lines = slots(drawn)
    heights = [i for i, (_, _, row) in enumerate(lines) if row is not None]
    styles = domain_styles(list(dict.fromkeys(str(row["inner"]) for row in drawn)))
    hover = [f"{label(row['owner'])}: {label(row['inner'])}" for row in drawn]
    own: Row = {"y": heights, "text": hover, "mode": "markers", "showlegend": False}
    own |= {"hovertemplate": "%{text}<br>%{x:.2f} points<extra></extra>"}
    figure = go.Figure()
    figure.set_subplots(cols=1)
    difference_trace(figure, drawn, [styles[str(r["inner"])].colour for r in drawn], own, column=1)
    for name, symbol in (("95% interval excludes 0", "circle"), ("includes 0", "circle-open")):
        mark = {"symbol": symbol, "size": 11, "color": INK, "line": {"color": INK, "width": 2}}
        figure.add_scatter(x=[None], y=[None], name=name, mode="markers", marker=mark)
    figure.update_yaxes(
        tickvals=list(range(len(lines))),
        ticktext=[text for _, text, _ in lines],
        range=[len(lines) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
    )
    ends = [100 * float(row[key]) for row in drawn for key in ("difference", "low", "high")]
    known = [0.0, *(end for end in ends if math.isfinite(end))]
    room = 0.06 * (max(known) - min(known)) + 0.1
    figure.update_xaxes(
        range=[min(known) - room, max(known) + room],
        zerolinewidth=2,
        title_text="drop of the first minus<br>drop of the second (points)",
    )
    bands(figure, [owner for owner, _, _ in lines])
    finish(
        figure,
        "Which method's neurons cost more",
        "Same questions, paired; right of 0 the first method's neurons cost more",
        height=rows_height(drawn),
    )
    inner = rows_height(drawn) - MARGINS["t"] - MARGINS["b"]
    return figure.update_layout(margin=MARGINS, legend={"y": 1 + 8 / inner})


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
    cells = {(row["domain"], row["modality"]): row for row in rows}
    here = [[cells.get((d, m)) for m in across] for d in down]
    ratios = [[_times_chance(one) for one in line] for line in here]
    known = [one for line in ratios for one in line if one is not None]
    sizes = {"domain": {r["domain"]: int(r["n_domain"]) for r in rows}}
    sizes["modality"] = {r["modality"]: int(r["n_modality"]) for r in rows}
    figure = go.Figure(
        go.Heatmap(
            z=ratios,
            text=[[_both(one) for one in line] for line in here],
            texttemplate="%{text}",
            textfont={"size": 12},
            customdata=[[f"{label(d)}, {label(m)}" for m in across] for d in down],
            hovertemplate="%{customdata}: %{z:.3g} times chance<extra></extra>",
            hoverongaps=False,
            zmin=0,
            zmax=max(known, default=1.0) or 1.0,
            colorscale=SEQUENTIAL,
            showscale=False,
            xgap=2,
            ygap=2,
        )
    )
    look: Row = {"showgrid": False, "zeroline": False}
    figure.update_xaxes(
        title_text="by importance: modality (its neurons)",
        tickvals=list(range(len(across))),
        ticktext=[f"{wrapped(m, 16)}<br>({sizes['modality'][m]:,})" for m in across],
        **look,
    )
    figure.update_yaxes(
        title_text="by entropy: domain (its neurons)",
        tickvals=list(range(len(down))),
        ticktext=[f"{wrapped(d, 16)} ({sizes['domain'][d]:,})" for d in down],
        range=[len(down) - 0.5, -0.5],
        **look,
    )
    finish(
        figure,
        "How many of one method's neurons the other finds too",
        "Neurons in both sets; in brackets as many as random sets of these sizes share.<br>"
        "The darker, the more times chance",
        height=225 + 46 * len(down),
    )
    return figure.update_layout(margin={"t": 105, "b": 120})


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


def split_types_figure(
    masking: pd.DataFrame,
    control: str = "matched",
    *,
    mined: str | None = None,
    strategy: str | None = None,
    weights: str | None = None,
    ratio: float | None = None,
    treatment: str | None = None,
    evaluated: str | None = None,
    modalities: Sequence[str] | None = None,
) -> go.Figure:
    """What each way of splitting the prompt into token sets finds, and what masking it costs.

    Per split type (methods 3.1) its modalities, with the number of neurons in brackets. Panels, marks,
    other arguments and errors as :func:`mmlens.plots.masking_effects`; columns:
    :data:`SPLIT_COLUMNS`, the masking table's and ``split``.
    """
    table = masking_rows(masking, ("split",))
    chosen = {"mined": mined, "strategy": strategy, "weights": weights, "ratio": ratio}
    table = choose(table, **chosen, treatment=treatment, evaluated=evaluated)
    splits = dict.fromkeys(one for one in SPLITS if any(r["split"] == one for r in table))
    splits |= dict.fromkeys(str(row["split"]) for row in table)
    rows = against(table, control, ("split",))
    order = ordered(rows, "modality", modalities)
    cells = {(row["split"], row["modality"]): row for row in rows}
    drawn = [
        row
        | {
            "owner": SPLITS.get(split, split),
            "inner": f"{'all modalities' if m == 'all' else m} ({int(row['n_neurons']):,})",
            "mask": m,
        }
        for split in splits
        for m in order
        if (row := cells.get((split, m)))
    ]
    styles = styles_of(modalities or order)
    figure = cost_rows(drawn, [styles[row["mask"]].colour for row in drawn], control)
    return finish(
        figure,
        "Ways of splitting the prompt: what masking costs",
        f"{setting_text(rows, ['modality'])};<br>neurons in brackets; "
        f"{span([r['n_questions'] for r in rows])} questions; {control_text(rows, control)}",
        height=rows_height(drawn),
    )
