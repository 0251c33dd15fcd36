"""What silencing costs beside the controls: by domain, as a matrix of domains, by module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.effect_marks import bands, effect_axes, effect_legend, effect_traces
from mmlens.plots.frames import (
    EFFECT_COLUMNS,
    Row,
    at_fraction,
    checked_rows,
    excludes_zero,
    in_order,
    with_control,
)
from mmlens.plots.numbers import POINTS, Unit, percent, points, span
from mmlens.plots.style import CELLS, DIVERGING, GREY, finish, label, named_ticks, styles_of


def effects_against_controls(
    effects: pd.DataFrame,
    control: str = "matched",
    *,
    fraction: float | None = None,
    domains: Sequence[str] | None = None,
) -> go.Figure:
    """What silencing each domain's neurons costs, against the control (percentage points).

    A row per mask and questions (its own, the others', all). Left: drop under the mask, and mean
    drop under the control with its standard deviation over seeds. Right: their difference with its
    95% interval; the marker is filled where the interval excludes 0, hollow where it does not.
    Columns: :data:`EFFECT_COLUMNS`. Without ``fraction``, a menu chooses among those there are.
    ValueError for a missing column, an absent control or fraction, or no own/others/all rows.
    """
    rows = with_control(checked_rows(effects, EFFECT_COLUMNS, "effects"), control)
    if fraction is not None:
        rows = at_fraction(rows, fraction, "effects")
    pairs = _effect_pairs(rows)
    masks = list(dict.fromkeys(mask for mask, _ in pairs if mask != "all"))
    styles = styles_of(domains if domains is not None else masks)
    fractions = sorted({float(row["fraction"]) for row in rows})
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.05)
    for value in fractions:
        found = {(r["mask"], r["evaluated"]): r for r in at_fraction(rows, value, "effects")}
        drawn = [pair for pair in pairs if pair in found]
        effect_traces(
            figure,
            [found[pair] for pair in drawn],
            [styles[mask].colour for mask, _ in drawn],
            value == fractions[0],
            [pairs.index(pair) for pair in drawn],
        )
    effect_legend(figure, f"{label(control)} control")
    _name_rows(figure, pairs)
    effect_axes(figure, rows)
    bands(figure, [mask for mask, _ in pairs])
    if len(fractions) > 1:
        _fraction_menu(figure, fractions)
    questions, seeds = (span([row[key] for row in rows]) for key in ("n_questions", "n_seeds"))
    return finish(
        figure,
        f"What silencing a domain's neurons costs, against the {label(control)} control",
        f"Fraction {', '.join(map(percent, fractions))}; {questions} questions; {seeds} control "
        "seeds",
        height=max(500, 205 + 27 * len(pairs)),
    )


def _name_rows(figure: go.Figure, pairs: Sequence[tuple[str, str]]) -> None:
    """Whose neurons are silenced and whose questions are asked, a row each from the top."""
    named = {"own": "own questions", "others": "others' questions", "all": "all questions"}
    masks = ["all domains" if mask == "all" else label(mask) for mask, _ in pairs]
    figure.update_yaxes(
        zeroline=False,
        range=[len(pairs) - 0.5, -0.5],
        **named_ticks([f"{m}: {named[part]}" for m, (_, part) in zip(masks, pairs, strict=True)]),
    )


def _effect_pairs(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(mask, evaluated) in the order drawn: per mask its own questions, the others', all."""
    masks = dict.fromkeys(row["mask"] for row in rows)
    present = {(row["mask"], row["evaluated"]) for row in rows}
    wanted = [(mask, part) for mask in masks for part in ("own", "others", "all")]
    pairs = [pair for pair in wanted if pair in present]
    if not pairs:
        raise ValueError("The effects frame needs rows evaluated on 'own', 'others' or 'all'.")
    return pairs


def _fraction_menu(figure: go.Figure, fractions: Sequence[float]) -> None:
    """A menu that shows one fraction's three traces at a time; the legend's own traces stay."""
    traces = list(range(3 * len(fractions)))
    buttons = [
        {
            "label": f"fraction {percent(fraction)}",
            "method": "restyle",
            "args": [{"visible": [trace // 3 == i for trace in traces]}, traces],
        }
        for i, fraction in enumerate(fractions)
    ]
    # Over the row names: the legend fills the rest of that line.
    place = {"x": -0.02, "xanchor": "right", "y": 1.03, "yanchor": "bottom", "pad": {"b": 0}}
    look = {"bgcolor": "#ffffff", "bordercolor": GREY, "font": {"size": 13}}
    figure.update_layout(updatemenus=[{"buttons": buttons, **place, **look}])


def effect_matrix(
    effects: pd.DataFrame,
    control: str = "matched",
    fraction: float = 0.01,
    *,
    domains: Sequence[str] | None = None,
    unit: Unit = POINTS,
    asked_of: str = "questions",
) -> go.Figure:
    """Heat map: whose neurons are silenced (rows) by whose questions are asked (columns).

    A cell is the drop under the mask minus the mean drop under the control, in percentage points or
    another ``unit`` (``NATS``: log-probability per token of texts, ``asked_of="texts"``);
    a star says that its 95% interval excludes 0. Columns: :data:`EFFECT_COLUMNS`, with domain names
    in ``evaluated`` ("own" serves as the diagonal). ValueError for a missing column, an absent
    control or fraction, or when no mask was evaluated on another domain by name.
    """
    rows = with_control(checked_rows(effects, EFFECT_COLUMNS, "effects"), control)
    rows = at_fraction(rows, fraction, "effects")
    named = _by_name(rows)
    asked = list(domains) if domains is not None else in_order(named, "evaluated")
    cells = {(r["mask"], r["mask"]): r for r in rows if r["evaluated"] == "own"}
    cells |= {(r["mask"], r["evaluated"]): r for r in named}
    masks = [m for m in (*asked, "all") if any(mask == m for mask, _ in cells)]
    figure = _difference_map(
        cells,
        masks,
        asked,
        unit,
        unit.text,
        f"%{{y}} neurons silenced, %{{x}} {asked_of}: %{{z:.3g}} {unit.name}<extra></extra>",
    )
    figure.update_xaxes(title_text=f"{asked_of} of", side="bottom", showgrid=False, type="category")
    figure.update_yaxes(
        title_text="silenced neurons of", autorange="reversed", showgrid=False, type="category"
    )
    return finish(
        figure,
        f"Whose neurons matter for whose {asked_of}, against the {label(control)} control",
        f"{unit.lost} beyond the control, fraction {percent(fraction)}; * 95% interval excludes 0",
        height=max(500, 190 + 40 * len(masks)),
        margin={"t": 85},
    )


def effects_by_modules(
    effects: pd.DataFrame,
    modules: Sequence[str],
    control: str = "matched",
    *,
    domains: Sequence[str] | None = None,
) -> go.Figure:
    """Heat map: which combination of modules is silenced (rows), whose neurons and questions (columns).

    A cell is the drop on the domain's own questions beyond the control's, in percentage points; a star
    says that its 95% interval excludes 0. Columns: :data:`EFFECT_COLUMNS` and ``modules``. ValueError
    for a missing column or an absent control.
    """
    rows = with_control(checked_rows(effects, (*EFFECT_COLUMNS, "modules"), "effects"), control)
    cells = {(r["modules"], r["mask"]): r for r in rows if r["evaluated"] == "own"}
    columns = list(domains) if domains is not None else list(dict.fromkeys(m for _, m in cells))
    figure = _difference_map(
        cells,
        modules,
        columns,
        POINTS,
        lambda difference: points(difference, sign=True),
        "%{y}, %{x}: %{z:.1f} points<extra></extra>",
    )
    figure.update_xaxes(title="domain: its neurons, its questions", showgrid=False)
    figure.update_yaxes(title="modules silenced", autorange="reversed", showgrid=False)
    asked = span([int(row["n_questions"]) for row in cells.values()])
    return finish(
        figure,
        "Silencing one module at a time",
        f"Drop beyond the {control} control's, percentage points; {asked} questions per domain.",
        height=max(360, 190 + 48 * len(modules)),
    )


def _by_name(rows: Sequence[Row]) -> list[Row]:
    """Rows evaluated on a domain by its name. ValueError where none is on another's than the mask's."""
    named = [row for row in rows if row["evaluated"] not in ("own", "others", "all")]
    if not any(row["evaluated"] != row["mask"] for row in named):
        raise ValueError(
            "The effects frame has no full matrix: it needs rows whose 'evaluated' names a domain "
            f"other than the mask's, and has {sorted({str(r['evaluated']) for r in rows})}."
        )
    return named


def _difference_map(
    cells: Mapping[tuple[str, str], Row],
    rows: Sequence[str],
    columns: Sequence[str],
    unit: Unit,
    written: Callable[[float], str],
    hover: str,
) -> go.Figure:
    """Differences from a control as cells, written in them; a star where the interval excludes 0."""
    values = np.full((len(rows), len(columns)), np.nan)
    text = [["" for _ in columns] for _ in rows]
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            if (cell := cells.get((row, column))) is not None:
                values[i, j] = unit.factor * cell["difference"]
                star = " *" if excludes_zero(cell) else ""
                text[i][j] = written(cell["difference"]) + star
    bound = max(float(np.nan_to_num(np.abs(values)).max()), 1e-9)
    return go.Figure(
        go.Heatmap(
            z=values.tolist(),
            x=[label(one) for one in columns],
            y=[label(one) for one in rows],
            text=text,
            textfont={"size": 13},
            zmin=-bound,
            zmax=bound,
            colorscale=DIVERGING,
            hoverongaps=False,
            colorbar={"title": {"text": unit.name, "side": "right"}, "thickness": 14},
            hovertemplate=hover,
            **CELLS,
        )
    )
