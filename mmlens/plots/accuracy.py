"""Accuracy on each domain's questions under each condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mmlens.plots.frames import ACCURACY_COLUMNS, Row, at_fraction, checked_rows
from mmlens.plots.numbers import percent, span
from mmlens.plots.style import GREY, INK, DomainStyle, domain_styles, finish, label

# Conditions of an accuracy frame, in the order drawn: name and bar pattern.
CONDITIONS = {
    "none": ("nothing silenced", ""),
    "mask": ("own neurons silenced", ""),
    "random": ("random control", "/"),
    "matched": ("matched control", "."),
}


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
    return pd.DataFrame(
        {"evaluated": domain, "condition": condition} | _over_seeds(groups[domain, condition])
        for domain in dict.fromkeys(row["evaluated"] for row in rows)
        for condition in (*CONDITIONS, "all")
        if (domain, condition) in groups
    )


def _over_seeds(rows: Sequence[Row]) -> Row:
    """Questions, seeds, mean and standard deviation over seeds (0 with one seed)."""
    # One value per seed: an unmasked run may be repeated in the frame for every fraction.
    values = np.array(list({row["seed"]: float(row["accuracy"]) for row in rows}.values()))
    sd = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {"n": int(rows[0]["n"]), "n_seeds": len(values), "mean": float(values.mean()), "sd": sd}


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
    for condition in CONDITIONS:
        if found := [(d, cells[d, condition]) for d in order if (d, condition) in cells]:
            _bars(figure, found, condition, styles)
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


def _bars(
    figure: go.Figure,
    found: Sequence[tuple[str, Row]],
    condition: str,
    styles: Mapping[str, DomainStyle],
) -> None:
    """One condition's bars, a domain each, with the standard deviation over seeds; its legend."""
    name, pattern = CONDITIONS[condition]
    look = {
        "pattern": {"shape": pattern, "size": 7, "solidity": 0.45},
        "line": {"color": INK, "width": 1},
    }
    plain = condition == "none"
    colours = "#ffffff" if plain else [styles[d].colour for d, _ in found]
    figure.add_bar(
        x=[label(d) for d, _ in found],
        y=[100 * cell["mean"] for _, cell in found],
        error_y={
            "array": [100 * cell["sd"] for _, cell in found],
            "color": INK,
            "visible": any(cell["sd"] > 0 for _, cell in found),
        },
        marker=look | {"color": colours},
        name=condition,
        showlegend=False,
        offsetgroup=condition,
        customdata=[[cell["n"], cell["n_seeds"]] for _, cell in found],
        hovertemplate=f"%{{x}}, {name}: %{{y:.1f}}%<br>%{{customdata[0]}} questions, "
        "%{customdata[1]} run(s)<extra></extra>",
    )
    # Bars vary in colour by domain: the legend shows the patterns alone, in grey.
    marker = look | {"color": "#ffffff" if plain else GREY}
    figure.add_bar(x=[None], y=[None], name=name, offsetgroup=condition, marker=marker)
