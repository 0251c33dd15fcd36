"""Figures of effects and accuracies: what silencing costs, beside the controls.

Part of :mod:`mmlens.plots`, which offers them by name; kept apart for length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.style import (
    DIVERGING,
    GREY,
    INK,
    PALE,
    Row,
    at_fraction,
    checked_rows,
    domain_styles,
    finish,
    label,
    percent,
    points,
    span,
    with_control,
)

EFFECT_COLUMNS = (
    *("mask", "fraction", "n_neurons", "evaluated", "control", "n_questions", "n_seeds"),
    *("baseline", "masked", "control_mean", "control_sd"),
    *("drop", "control_drop", "difference", "low", "high"),
)


@dataclass(frozen=True)
class Unit:
    """What scores are counted in, and how a figure writes that.

    Attributes:
        factor: what a score is multiplied by to be drawn.
        name: of the axis.
        lost: what a drop is, for the subtitle.
        digits: behind the point.
    """

    factor: float
    name: str
    lost: str
    digits: int

    def text(self, value: float) -> str:
        """A difference with its sign, in this unit."""
        if math.isnan(value):
            return "n/a"
        drawn = self.factor * value
        text = f"{drawn:+.{self.digits}f}"
        return text if float(text) else text[1:]


POINTS = Unit(100.0, "points", "Percentage points of accuracy lost", 1)
NATS = Unit(1.0, "nats per token", "Log-probability lost, nats per token,", 3)
ACCURACY_COLUMNS = ("mask", "kind", "seed", "fraction", "evaluated", "n", "accuracy")
# Conditions of an accuracy frame, in the order drawn: name and bar pattern.
CONDITIONS = {
    "none": ("nothing silenced", ""),
    "mask": ("own neurons silenced", ""),
    "random": ("random control", "/"),
    "matched": ("matched control", "."),
}


def _effect_pairs(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(mask, evaluated) in the order drawn: per mask its own questions, the others', all."""
    masks = dict.fromkeys(row["mask"] for row in rows)
    present = {(row["mask"], row["evaluated"]) for row in rows}
    wanted = [(mask, part) for mask in masks for part in ("own", "others", "all")]
    return [pair for pair in wanted if pair in present]


def effect_traces(
    figure: go.Figure,
    rows: Sequence[Row],
    colours: Sequence[str],
    shown: bool,
    heights: Sequence[int],
) -> None:
    """Drops on the left, their difference with its interval on the right, one row each.

    Rows have ``mask``, ``evaluated``, ``n_neurons``, ``n_questions``, ``drop``, ``control_drop``,
    ``control_sd``, ``difference``, ``low`` and ``high``; not a number is not drawn.
    """
    hover = [
        f"{label(r['mask'])} neurons ({r['n_neurons']}), {label(r['evaluated'])}: "
        f"{r['n_questions']} questions"
        for r in rows
    ]
    own: Row = {"y": heights, "text": hover, "showlegend": False, "visible": shown}
    own |= {"mode": "markers", "hovertemplate": "%{text}<br>%{x:.2f} points"}
    figure.add_scatter(
        x=[100 * r["control_drop"] for r in rows],
        name="control",
        row=1,
        col=1,
        marker={"symbol": "line-ns", "size": 14, "line": {"color": INK, "width": 2}},
        error_x={"array": [100 * r["control_sd"] for r in rows], "color": GREY, "width": 0},
        **own,
    )
    figure.add_scatter(
        x=[100 * r["drop"] for r in rows],
        name="mask",
        row=1,
        col=1,
        marker={
            "symbol": "diamond",
            "size": 11,
            "color": colours,
            "line": {"color": INK, "width": 0.7},
        },
        **own,
    )
    difference_trace(figure, rows, colours, own, column=2)


def difference_trace(
    figure: go.Figure, rows: Sequence[Row], colours: Sequence[str], own: Row, column: int
) -> None:
    """Differences with their 95% intervals, in points: filled where it excludes 0, hollow else.

    ``own`` is what the trace shares with others: places ``y``, ``text`` of the hover, ``visible``.
    """
    clear = [r["low"] > 0 or r["high"] < 0 for r in rows]
    figure.add_scatter(
        x=[100 * r["difference"] for r in rows],
        name="difference",
        row=1,
        col=column,
        marker={
            "symbol": ["circle" if c else "circle-open" for c in clear],
            "size": 12,
            "color": colours,
            "line": {"color": colours, "width": 2.5},
        },
        error_x={
            "array": [100 * (r["high"] - r["difference"]) for r in rows],
            "arrayminus": [100 * (r["difference"] - r["low"]) for r in rows],
            "color": GREY,
            "thickness": 2,
            "width": 5,
        },
        **own,
    )


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
    if not pairs:
        raise ValueError("The effects frame needs rows evaluated on 'own', 'others' or 'all'.")
    masks = list(dict.fromkeys(mask for mask, _ in pairs if mask != "all"))
    styles = domain_styles(list(domains) if domains is not None else masks)
    colour = {mask: styles[mask].colour if mask in styles else INK for mask, _ in pairs}
    fractions = sorted({float(row["fraction"]) for row in rows})
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.05)
    for value in fractions:
        found = {(r["mask"], r["evaluated"]): r for r in at_fraction(rows, value, "effects")}
        drawn = [pair for pair in pairs if pair in found]
        effect_traces(
            figure,
            [found[pair] for pair in drawn],
            [colour[m] for m, _ in drawn],
            value == fractions[0],
            [pairs.index(pair) for pair in drawn],
        )
    effect_legend(figure, f"{label(control)} control")
    named = {"own": "own questions", "others": "others' questions", "all": "all questions"}
    shown = {mask: label(mask) for mask in masks} | {"all": "all domains"}
    ticks = [f"{shown[mask]}: {named[part]}" for mask, part in pairs]
    figure.update_yaxes(
        tickvals=list(range(len(pairs))),
        ticktext=ticks,
        zeroline=False,
        range=[len(pairs) - 0.5, -0.5],
    )
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


def effect_legend(figure: go.Figure, control: str) -> None:
    """What the marks of :func:`effect_traces` mean, in ink alone: their colours tell masks apart."""
    # The marker of the mask must not be read as filled for "excludes 0": it has another shape.
    for name, symbol in (
        ("drop, mask", "diamond"),
        (f"drop, {control} (mean, sd)", "line-ns"),
        ("95% interval excludes 0", "circle"),
        ("includes 0", "circle-open"),
    ):
        figure.add_scatter(
            x=[None],
            y=[None],
            name=name,
            mode="markers",
            marker={"symbol": symbol, "size": 11, "color": INK, "line": {"color": INK, "width": 2}},
        )


def effect_axes(figure: go.Figure, rows: Sequence[Row]) -> None:
    """One scale for both panels and all rows that may be drawn: lengths can be compared."""
    ends = [100 * row[key] for row in rows for key in ("drop", "control_drop", "low", "high")]
    known = [0.0, *(end for end in ends if math.isfinite(end))]
    room = 0.06 * (max(known) - min(known)) + 0.1
    figure.update_xaxes(range=[min(known) - room, max(known) + room], zerolinewidth=2)
    figure.update_xaxes(title_text="drop in accuracy<br>(percentage points)", col=1)
    figure.update_xaxes(title_text="mask minus control<br>(percentage points)", col=2)


def bands(figure: go.Figure, owners: Sequence[str]) -> None:
    """Shade every other owner's rows, so that an eye keeps the line across both panels.

    ``owners`` names who each row belongs to, from the top.
    """
    for owner in list(dict.fromkeys(owners))[::2]:
        at = [i for i, one in enumerate(owners) if one == owner]
        figure.add_hrect(
            y0=min(at) - 0.5,
            y1=max(at) + 0.5,
            fillcolor=PALE,
            opacity=0.35,
            line_width=0,
            layer="below",
        )


def _fraction_menu(figure: go.Figure, fractions: Sequence[float]) -> None:
    """A menu that shows one fraction's three traces at a time; the legend's own traces stay."""
    traces = list(range(3 * len(fractions)))
    buttons = []
    for i, fraction in enumerate(fractions):
        visible = [trace // 3 == i for trace in traces]
        buttons.append(
            {
                "label": f"fraction {percent(fraction)}",
                "method": "restyle",
                "args": [{"visible": visible}, traces],
            }
        )
    # Over the row names: the legend fills the rest of that line.
    figure.update_layout(
        updatemenus=[
            {
                "buttons": buttons,
                "x": -0.02,
                "xanchor": "right",
                "y": 1.03,
                "yanchor": "bottom",
                "bgcolor": "#ffffff",
                "bordercolor": GREY,
                "font": {"size": 13},
                "pad": {"b": 0},
            }
        ]
    )


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
                star = " *" if cell["low"] > 0 or cell["high"] < 0 else ""
                text[i][j] = written(cell["difference"]) + star
    bound = max(float(np.nan_to_num(np.abs(values)).max()), 1e-9)
    return go.Figure(
        go.Heatmap(
            z=values.tolist(),
            x=[label(one) for one in columns],
            y=[label(one) for one in rows],
            text=text,
            texttemplate="%{text}",
            textfont={"size": 13},
            zmin=-bound,
            zmax=bound,
            colorscale=DIVERGING,
            xgap=2,
            ygap=2,
            hoverongaps=False,
            colorbar={"title": {"text": unit.name, "side": "right"}, "thickness": 14},
            hovertemplate=hover,
        )
    )


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
    named = [row for row in rows if row["evaluated"] not in ("own", "others", "all")]
    if not any(row["evaluated"] != row["mask"] for row in named):
        raise ValueError(
            "The effects frame has no full matrix: it needs rows whose 'evaluated' names a domain "
            f"other than the mask's, and has {sorted({str(r['evaluated']) for r in rows})}."
        )
    asked = (
        list(domains)
        if domains is not None
        else list(dict.fromkeys(row["evaluated"] for row in named))
    )
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
    finish(
        figure,
        f"Whose neurons matter for whose {asked_of}, against the {label(control)} control",
        f"{unit.lost} beyond the control, fraction {percent(fraction)}; * 95% interval excludes 0",
        height=max(500, 190 + 40 * len(masks)),
    )
    return figure.update_layout(margin={"t": 85})


def accuracy_summary(accuracy: pd.DataFrame, fraction: float = 0.01) -> pd.DataFrame:
    """Mean accuracy (0..1) of each domain's questions under each condition at ``fraction``.

    Conditions: "none"; "mask", "random" and "matched" of the domain's own neurons; "all" where all
    domains' neurons were silenced together. Columns given back: ``evaluated``, ``condition``,
    ``n`` (questions), ``n_seeds``, ``mean`` and ``sd`` over seeds (0 with one seed). Columns
    needed: :data:`ACCURACY_COLUMNS`. ValueError for a missing one or an absent fraction.
    """
    rows = checked_rows(accuracy, ACCURACY_COLUMNS, "accuracy")
    plain = [row for row in rows if row["kind"] == "none"]
    silenced = [row for row in rows if row["kind"] != "none"]
    chosen = plain + (at_fraction(silenced, fraction, "accuracy") if silenced else [])
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in chosen:
        if row["kind"] == "none" or row["mask"] == row["evaluated"]:
            groups.setdefault((row["evaluated"], row["kind"]), []).append(row)
        elif row["mask"] == "all" and row["kind"] == "mask":
            groups.setdefault((row["evaluated"], "all"), []).append(row)
    table = []
    for domain in dict.fromkeys(row["evaluated"] for row in rows):
        for condition in (*CONDITIONS, "all"):
            if not (found := groups.get((domain, condition))):
                continue
            # One value per seed: an unmasked run may be repeated in the frame for every fraction.
            by_seed = {row["seed"]: float(row["accuracy"]) for row in found}
            values = np.array(list(by_seed.values()))
            table.append(
                {
                    "evaluated": domain,
                    "condition": condition,
                    "n": int(found[0]["n"]),
                    "n_seeds": len(values),
                    "mean": float(values.mean()),
                    "sd": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
                }
            )
    return pd.DataFrame(table)


def accuracy_bars(
    accuracy: pd.DataFrame, fraction: float = 0.01, *, domains: Sequence[str] | None = None
) -> go.Figure:
    """Accuracy (per cent) on each domain's questions: nothing silenced, its own neurons, controls.

    Error bars: standard deviation over the controls' seeds. Columns: :data:`ACCURACY_COLUMNS`.
    ValueError for a missing column or an absent fraction, as :func:`accuracy_summary`.
    """
    table = accuracy_summary(accuracy, fraction).to_dict("records")
    cells: Mapping[tuple[str, str], Row] = {
        (row["evaluated"], row["condition"]): {str(k): v for k, v in row.items()} for row in table
    }
    order = list(domains) if domains is not None else list(dict.fromkeys(d for d, _ in cells))
    styles = domain_styles(order)
    figure = go.Figure()
    for condition, (name, pattern) in CONDITIONS.items():
        found = [(d, cells[d, condition]) for d in order if (d, condition) in cells]
        if not found:
            continue
        look = {
            "pattern": {"shape": pattern, "size": 7, "solidity": 0.45},
            "line": {"color": INK, "width": 1},
        }
        plain = condition == "none"
        figure.add_bar(
            x=[label(d) for d, _ in found],
            y=[100 * cell["mean"] for _, cell in found],
            error_y={
                "array": [100 * cell["sd"] for _, cell in found],
                "color": INK,
                "visible": any(cell["sd"] > 0 for _, cell in found),
            },
            marker=look | {"color": "#ffffff" if plain else [styles[d].colour for d, _ in found]},
            name=condition,
            showlegend=False,
            offsetgroup=condition,
            customdata=[[cell["n"], cell["n_seeds"]] for _, cell in found],
            hovertemplate=f"%{{x}}, {name}: %{{y:.1f}}%<br>%{{customdata[0]}} questions, "
            "%{customdata[1]} run(s)<extra></extra>",
        )
        # Bars vary in colour by domain: the legend shows the patterns alone, in grey.
        figure.add_bar(
            x=[None],
            y=[None],
            name=name,
            offsetgroup=condition,
            marker=look | {"color": "#ffffff" if plain else GREY},
        )
    counts = span([cell["n"] for cell in cells.values()])
    seeds = span([c["n_seeds"] for (_, k), c in cells.items() if k in ("random", "matched")] or [0])
    figure.update_layout(barmode="group", bargap=0.25)
    figure.update_xaxes(
        type="category", categoryorder="array", categoryarray=[label(d) for d in order]
    )
    # Scores that are no accuracies (CIDEr, MINER's WRR) may leave 0 to 1.
    means = [100 * cell["mean"] for cell in cells.values()]
    ends = [min(0.0, *(1.05 * m for m in means)), max(105.0, *(1.05 * m for m in means))]
    figure.update_yaxes(title_text="accuracy (%)", range=ends)
    return finish(
        figure,
        "Accuracy with a domain's own neurons silenced, and with controls",
        f"Fraction {percent(fraction)}; {counts} questions per domain; controls: mean and sd over "
        f"{seeds} seeds",
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
