"""What figures and report share: one look, checks of tables, how numbers are written."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

Row = dict[str, Any]

INK, GREY, PALE = "#1f2328", "#6b7280", "#d9dce1"
# Okabe and Ito; yellow last, because it is faint on white.
COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7"),
    *("#56B4E9", "#D55E00", "#000000", "#F0E442"),
)
# As many symbols as colours plus one: past the eighth domain, pairs of the two still differ.
SYMBOLS = (
    *("circle", "square", "diamond", "triangle-up"),
    *("x", "triangle-down", "star", "cross", "hexagon"),
)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
DIVERGING = [[0.0, "#0072B2"], [0.5, "#ffffff"], [1.0, "#D55E00"]]


@dataclass(frozen=True)
class DomainStyle:
    """How one domain is drawn: colour, marker symbol and dash."""

    colour: str
    symbol: str
    dash: str


def domain_styles(domains: Sequence[str]) -> dict[str, DomainStyle]:
    """Style per domain, by its place in ``domains``. Raises ValueError when a name occurs twice."""
    if len(set(domains)) != len(domains):
        raise ValueError(f"Domains must be given once each, got {list(domains)}.")
    return {
        domain: DomainStyle(
            COLOURS[i % len(COLOURS)], SYMBOLS[i % len(SYMBOLS)], DASHES[i % len(DASHES)]
        )
        for i, domain in enumerate(domains)
    }


def template() -> go.layout.Template:
    """The look common to all figures: white ground, thin grid, legend above the plot."""
    axis = {
        "gridcolor": "#e8eaed",
        "zerolinecolor": GREY,
        "linecolor": GREY,
        "ticks": "outside",
        "tickcolor": PALE,
        "automargin": True,
        "title": {"standoff": 10, "font": {"size": 14}},
    }
    layout = go.Layout(
        font={"family": "system-ui, 'Segoe UI', Roboto, sans-serif", "size": 14, "color": INK},
        title={"x": 0.01, "xanchor": "left", "y": 0.97, "yanchor": "top", "font": {"size": 18}},
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
        colorway=COLOURS,
        xaxis=axis,
        yaxis=axis,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 13}},
        margin={"l": 20, "r": 20, "t": 125, "b": 55},
        height=500,
        hoverlabel={"bgcolor": "#ffffff", "font": {"color": INK}},
    )
    return go.layout.Template(layout=layout)


def finish(figure: go.Figure, title: str, subtitle: str, height: int = 500) -> go.Figure:
    """Apply the template, the title (what is seen) and the subtitle (how many, which)."""
    figure.update_layout(
        template=template(),
        height=height,
        # As far from the top in a tall figure: a share of its height would reach the legend.
        title={
            "y": 1 - 15 / height,
            "text": title,
            "subtitle": {"text": subtitle, "font": {"size": 13, "color": GREY}},
        },
    )
    return figure


def checked_rows(frame: pd.DataFrame, columns: Sequence[str], name: str) -> list[Row]:
    """The rows of ``frame`` as dictionaries. ValueError for a missing column or an empty frame."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(
            f"The {name} frame lacks {missing}: it has {[str(c) for c in frame.columns]}, "
            f"and needs {list(columns)}."
        )
    if frame.empty:
        raise ValueError(f"The {name} frame is empty: at least one row is needed.")
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def at_fraction(rows: Sequence[Row], fraction: float, name: str) -> list[Row]:
    """Rows of exactly this fraction. Raises ValueError naming the fractions there are."""
    found = [row for row in rows if math.isclose(row["fraction"], fraction, abs_tol=1e-9)]
    if not found:
        given = sorted({float(row["fraction"]) for row in rows})
        raise ValueError(f"The {name} frame has fractions {given}, and {fraction} was asked for.")
    return found


def with_control(rows: Sequence[Row], control: str) -> list[Row]:
    """Rows of effects against one control. Raises ValueError naming the controls there are."""
    found = [row for row in rows if row["control"] == control]
    if not found:
        given = sorted({str(row["control"]) for row in rows})
        raise ValueError(f"The effects frame has controls {given}, and {control!r} was asked for.")
    return found


def of_module(rows: Sequence[Row], module: str | None) -> tuple[list[Row], str]:
    """The rows of one module. Raises ValueError naming the modules there are."""
    present = list(dict.fromkeys(str(row["module"]) for row in rows))
    if module is None and len(present) > 1:
        raise ValueError(f"The frame has the modules {present}; say which one to draw.")
    if module is not None and module not in present:
        raise ValueError(f"The frame has the modules {present}, and {module!r} was asked for.")
    chosen = module if module is not None else present[0]
    return [row for row in rows if str(row["module"]) == chosen], chosen


def percent(share: float) -> str:
    """0.01 as '1%'."""
    return f"{100 * share:g}%"


def points(share: float, sign: bool = False) -> str:
    """A share in percentage points: 0.0213 as '2.1', not a number as 'n/a'."""
    value = 100 * share
    if math.isnan(value):
        return "n/a"
    text = f"{value:.1f}"
    if float(text) == 0:
        return "0.0"
    return f"+{text}" if sign and value > 0 else text


def bound(share: float) -> str:
    """An end of an interval in percentage points, as :func:`points`.

    A small end keeps a digit that is not 0, so that an interval that excludes 0 is never printed
    as one that touches it.
    """
    text = points(share)
    return f"{100 * share:.1g}" if text == "0.0" and abs(share) > 1e-12 else text


def span(values: Sequence[int | float]) -> str:
    """Counts as '120', or '80 to 120' where they differ."""
    low, high = int(min(values)), int(max(values))
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def label(text: str) -> str:
    """Text that plotly draws as it is: plotly reads tags in labels, and names come from outside."""
    return html.escape(str(text), quote=False)
