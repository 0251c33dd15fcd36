"""The look of all figures: colours, styles of domains, template, titles, names as plotly draws them."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

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


# One hue from white to dark: lightness alone tells the value, in greyscale too.
SEQUENTIAL = [[0.0, "#ffffff"], [0.5, "#8fb8d8"], [1.0, "#08306b"]]


#: A heat map whose cells hold their own text.
CELLS: dict[str, Any] = {"texttemplate": "%{text}", "xgap": 2, "ygap": 2}


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


def styles_of(names: Sequence[str]) -> dict[str, DomainStyle]:
    """Styles by place; "all" is drawn in ink."""
    named = domain_styles([name for name in names if name != "all"])
    return named | {"all": DomainStyle(INK, "circle", "solid")}


def pale(colour: str) -> str:
    """A hexadecimal colour, mostly transparent."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.25)"


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


def finish(
    figure: go.Figure, title: str, subtitle: str, height: int = 500, **layout: Any
) -> go.Figure:
    """Apply the template, the title (what is seen), the subtitle (how many, which) and ``layout``."""
    return figure.update_layout(
        template=template(),
        height=height,
        # As far from the top in a tall figure: a share of its height would reach the legend.
        title={
            "y": 1 - 15 / height,
            "text": title,
            "subtitle": {"text": subtitle, "font": {"size": 13, "color": GREY}},
        },
        **layout,
    )


def legend_entry(figure: go.Figure, name: str, mode: str, **look: Any) -> None:
    """An entry of the legend without data: for figures whose marks vary in colour."""
    figure.add_scatter(x=[None], y=[None], name=name, mode=mode, **look)


def named_ticks(names: Sequence[str]) -> dict[str, Any]:
    """An axis with a name at each of the places 0, 1, 2, …"""
    return {"tickvals": list(range(len(names))), "ticktext": list(names)}


def upright_titles(figure: go.Figure, shift: int, *, size: int = 14, **look: Any) -> None:
    """Titles of rows upright at the left, where they are read first; plotly puts them sideways.

    ``shift`` is theirs in pixels from the panels, ``size`` their letters'.
    """
    look |= {"textangle": 0, "x": 0, "xanchor": "right", "xshift": shift, "font": {"size": size}}
    figure.update_annotations(selector={"textangle": 90}, **look)
    figure.update_annotations(selector={"yanchor": "bottom"}, font={"size": 14})


def label(text: str) -> str:
    """Text that plotly draws as it is: plotly reads tags in labels, and names come from outside."""
    return html.escape(str(text), quote=False)


def wrapped(name: str, width: int = 18, lines: int = 2) -> str:
    """A name over a few short lines, cut with an ellipsis where it is longer still; as plotly text.

    >>> wrapped("a_very_long_data_set_name_of_somebody", 16)
    'a_very_long_<br>data_set_name…'
    """
    loose = str(name).replace("_", "_ ").replace("/", "/ ").replace("-", "- ")
    parts = textwrap.wrap(loose, width, break_long_words=True, break_on_hyphens=False) or [""]
    parts = [part.replace("_ ", "_").replace("/ ", "/").replace("- ", "-") for part in parts]
    if len(parts) > lines:
        parts = [*parts[: lines - 1], parts[lines - 1].rstrip("_-/ ") + "…"]
    return "<br>".join(label(part) for part in parts)
