"""How alike the sets are that less data would have given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.frames import (
    COMPARISONS,
    STABILITY_COLUMNS,
    Row,
    at_fraction,
    checked_rows,
    in_order,
    of_module,
)
from mmlens.plots.numbers import percent, span
from mmlens.plots.style import INK, DomainStyle, domain_styles, finish, label
from mmlens.plots.traces import CHANCE_LINE, curve

_HOVER = "%{x:,.0f} tokens: %{y:.3f}"


def stability_curves(
    stability: pd.DataFrame,
    module: str | None = None,
    fraction: float | None = None,
    *,
    domains: Sequence[str] | None = None,
) -> go.Figure:
    """How alike the sets are that fewer tokens give: to those of all data, and between two halves.

    Jaccard index (0 to 1) against tokens per domain, on a logarithmic axis; at the left the mean over
    both halves. The dotted line is what random sets of these sizes would share. Columns:
    :data:`STABILITY_COLUMNS`, as :func:`mmlens.selection.stability.stability` gives them. ValueError for a
    missing column, an absent module or fraction, or several and none chosen.
    """
    rows, module = of_module(checked_rows(stability, STABILITY_COLUMNS, "stability"), module)
    rows = _of_fraction(rows, fraction)
    present = in_order(rows, "domain")
    order = list(domains) if domains is not None else [d for d in present if d != "all"]
    styles = domain_styles(order)
    figure = make_subplots(
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.04,
        subplot_titles=["with the set of all data (these included)", "between two disjoint halves"],
    )
    figure.update_annotations(font={"size": 14}, yshift=4)
    for column, comparison in enumerate(COMPARISONS, start=1):
        here = [row for row in rows if row["comparison"] == comparison]
        for domain in (d for d in (*order, "all") if d in present):
            x, y = _mean_by_part([row for row in here if row["domain"] == domain], "jaccard")
            look = styles.get(domain, DomainStyle(INK, "circle-open", "solid"))
            # All domains together are thicker, in ink.
            width = 2 if domain in styles else 3.5
            line = {"color": look.colour, "dash": look.dash, "width": width}
            marker = {"color": look.colour, "symbol": look.symbol, "size": 9}
            name = "all domains" if domain == "all" else label(domain)
            curve(figure, x, y, name, domain, _HOVER, line, (1, column), marker)
        x, y = _mean_by_part([row for row in here if row["domain"] == "all"], "chance")
        name = "by chance (all domains)"
        curve(figure, x, y, name, "chance", _HOVER, CHANCE_LINE, (1, column))
    figure.update_xaxes(type="log", title_text="tokens per domain (log scale)", dtick="D2")
    figure.update_yaxes(range=[-0.02, 1.04], dtick=0.2, zeroline=False)
    figure.update_yaxes(title_text="Jaccard index of the sets", col=1)
    sizes = span([int(row["n_reference"]) for row in rows if row["comparison"] == "full"])
    return finish(
        figure,
        f"How stable the sets are against the number of tokens, {label(module)}",
        f"Fraction {percent(rows[0]['fraction'])}; sets of {sizes} neurons in all data; left: mean "
        "of both halves",
        height=560,
        legend={"y": 1.09},
        margin={"t": 165},
    )


def _of_fraction(rows: Sequence[Row], fraction: float | None) -> list[Row]:
    """The rows of one fraction. Raises ValueError naming the fractions there are."""
    given = sorted({float(row["fraction"]) for row in rows})
    if fraction is None and len(given) > 1:
        raise ValueError(f"The frame has the fractions {given}; say which one to draw.")
    return at_fraction(rows, given[0] if fraction is None else fraction, "stability")


def _mean_by_part(rows: Sequence[Row], column: str) -> tuple[list[float], list[float]]:
    """Mean tokens and mean of a column for every budget, in order; NaN where any value is."""
    by_part: dict[int, list[Row]] = {}
    for row in rows:
        by_part.setdefault(int(row["part"]), []).append(row)
    tokens, means = (
        [float(np.mean([float(row[name]) for row in by_part[part]])) for part in sorted(by_part)]
        for name in ("tokens", column)
    )
    return tokens, means
