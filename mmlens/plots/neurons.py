"""Where neurons lie: how many each domain has, and in which layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.frames import NEURON_COLUMNS, Row, checked_rows, in_order
from mmlens.plots.numbers import percent
from mmlens.plots.style import GREY, INK, DomainStyle, domain_styles, finish, label, upright_titles

#: Bars of neurons with one label, and of those with several.
_PATTERNS = {
    "exclusive": {"shape": ""},
    "shared": {"shape": "/", "size": 7, "solidity": 0.5},
}


def neuron_domains(neurons: pd.DataFrame) -> list[str]:
    """Order of domains in a neurons frame: its ``p_<domain>`` columns, else first appearance."""
    named = [str(c)[2:] for c in neurons.columns if str(c).startswith("p_")]
    seen = [d.strip() for text in neurons["domains"] for d in str(text).split(";")]
    return named or list(dict.fromkeys(seen))


def _labelled(
    neurons: pd.DataFrame, fraction: float, domains: Sequence[str] | None
) -> tuple[list[Row], list[str], list[str]]:
    """Neurons selected at ``fraction`` (row["labels"] split), order of domains, modules."""
    rows = checked_rows(neurons, NEURON_COLUMNS, "neurons")
    order = list(domains) if domains is not None else neuron_domains(neurons)
    chosen = [row for row in rows if row["fraction"] <= fraction + 1e-9]
    if not chosen:
        least = min(row["fraction"] for row in rows)
        raise ValueError(
            f"The neurons frame has none selected at fraction {fraction}: its smallest is {least}."
        )
    for row in chosen:
        row["labels"] = [d.strip() for d in str(row["domains"]).split(";") if d.strip()]
        if not row["labels"] or not set(row["labels"]) <= set(order):
            raise ValueError(
                f"A neuron has the labels {row['domains']!r}: it needs one or more of {order}."
            )
    return chosen, order, in_order(chosen, "module")


def _panels(modules: Sequence[str], **options: Any) -> go.Figure:
    """One panel per module, side by side, named when there are several."""
    titles = [label(module) for module in modules] if len(modules) > 1 else None
    return make_subplots(cols=len(modules), subplot_titles=titles, **options)


def neurons_per_domain(
    neurons: pd.DataFrame, fraction: float = 0.01, *, domains: Sequence[str] | None = None
) -> go.Figure:
    """How many neurons carry each domain's label: exclusive (one label) and shared (several).

    A shared neuron counts once under each of its domains. Columns: ``module``, ``layer``,
    ``index``, ``fraction``, ``domains`` (labels joined by ';'); one panel per module. ``domains``
    gives order and colours (default: the ``p_<domain>`` columns). ValueError for a missing column,
    no neuron at ``fraction``, or an unknown label.
    """
    rows, order, modules = _labelled(neurons, fraction, domains)
    styles, names = domain_styles(order), [label(domain) for domain in order]
    figure = _panels(modules, shared_yaxes=True)
    for column, module in enumerate(modules, start=1):
        found = [row["labels"] for row in rows if row["module"] == module]
        carrying = {domain: [ls for ls in found if domain in ls] for domain in order}
        counts = {
            "exclusive": [sum(len(ls) == 1 for ls in carrying[d]) for d in order],
            "shared": [sum(len(ls) > 1 for ls in carrying[d]) for d in order],
        }
        totals = _label_bars(figure, counts, order, styles, (column, module))
        # The narrower a panel, the more of it the sums beside the bars take.
        room = max(totals) * (0.9 + 0.35 * len(modules)) + 1
        figure.update_xaxes(title_text="neurons", range=[0, room], row=1, col=column)
    for kind, name in (("exclusive", "exclusive: one label"), ("shared", "shared: several labels")):
        # Bars vary in colour by domain: the legend shows the patterns alone, in grey.
        marker = {"color": GREY, "pattern": _PATTERNS[kind]}
        figure.add_bar(x=[None], y=[None], name=name, orientation="h", marker=marker)
    figure.update_yaxes(categoryorder="array", categoryarray=names, autorange="reversed")
    # Above the modules' names where there are any.
    above = {"traceorder": "normal", "y": 1.02 if len(modules) == 1 else 1.08}
    figure.update_layout(barmode="stack", bargap=0.3, legend=above)
    single = sum(len(row["labels"]) == 1 for row in rows)
    return finish(
        figure,
        "Neurons that carry each domain's label",
        f"{len(rows)} neurons at fraction {percent(fraction)}: {single} with one label, "
        f"{len(rows) - single} with several, counted under each. Total = exclusive + shared",
        height=max(500, 200 + 34 * len(order)),
    )


def _label_bars(
    figure: go.Figure,
    counts: Mapping[str, Sequence[int]],
    order: Sequence[str],
    styles: Mapping[str, DomainStyle],
    at: tuple[int, str],
) -> list[int]:
    """One module's bars, stacked, and their sums beside them; gives back the sums."""
    (column, module), names = at, [label(domain) for domain in order]
    for kind, values in counts.items():
        figure.add_bar(
            x=values,
            y=names,
            name=kind,
            orientation="h",
            marker={
                "color": [styles[domain].colour for domain in order],
                "line": {"color": INK, "width": 0.7},
                "pattern": _PATTERNS[kind],
            },
            showlegend=False,
            hovertemplate=f"%{{y}}: %{{x}} {kind}<extra>{label(module)}</extra>",
            row=1,
            col=column,
        )
    pairs = list(zip(counts["exclusive"], counts["shared"], strict=True))
    totals = [exclusive + shared for exclusive, shared in pairs]
    figure.add_scatter(
        x=totals,
        y=names,
        mode="text",
        textposition="middle right",
        name="total",
        text=[f" {e + s} = {e} + {s}" for e, s in pairs],
        showlegend=False,
        hoverinfo="skip",
        row=1,
        col=column,
    )
    return totals


def layer_distribution(
    neurons: pd.DataFrame,
    n_layers: int | Mapping[str, int],
    fraction: float = 0.01,
    *,
    domains: Sequence[str] | None = None,
) -> go.Figure:
    """Number of each domain's neurons per layer: a row per domain, a column per module, one scale.

    Columns as in :func:`neurons_per_domain`. ``n_layers`` is the number of layers, or one per
    module; layers without neurons are drawn at 0. ValueError also for a layer outside it.
    """
    rows, order, modules = _labelled(neurons, fraction, domains)
    styles = domain_styles(order)
    figure = make_subplots(
        rows=len(order),
        cols=len(modules),
        shared_xaxes=True,
        column_titles=[f"neurons per layer, {label(module)}" for module in modules],
        row_titles=[label(domain) for domain in order],
        vertical_spacing=0.15 / len(order),
        horizontal_spacing=0.06,
    )
    upright_titles(figure, -34)
    tallest = 1
    for column, module in enumerate(modules, start=1):
        mine = [row for row in rows if row["module"] == module]
        depth = _checked_depth(mine, module, n_layers)
        for i, domain in enumerate(order, start=1):
            layers = [int(row["layer"]) for row in mine if domain in row["labels"]]
            counts = np.bincount(layers, minlength=depth).tolist()
            tallest = max(tallest, *counts)
            _layer_bars(figure, counts, domain, styles[domain].colour, (i, column))
        ticks: Row = {"dtick": 1} if depth <= 12 else {"nticks": 12}
        figure.update_xaxes(zeroline=False, range=[-0.6, depth - 0.4], col=column, **ticks)
        figure.update_xaxes(title_text="layer", row=len(order), col=column)
    figure.update_yaxes(range=[0, 1.5 * tallest], nticks=3, tickformat="d", showticklabels=True)
    figure.update_layout(showlegend=False, bargap=0.25)
    return finish(
        figure,
        "Where the domain neurons lie",
        f"Neurons per layer at fraction {percent(fraction)}; a neuron counts under each label",
        height=max(500, 150 + 68 * len(order)),
        margin={"t": 105, "l": 45 + 8 * max(map(len, order))},
    )


def _layer_bars(
    figure: go.Figure, counts: Sequence[int], domain: str, colour: str, at: tuple[int, int]
) -> None:
    """One domain's neurons per layer of a module, with their numbers where there is room."""
    figure.add_bar(
        x=list(range(len(counts))),
        y=counts,
        name=label(domain),
        marker={"color": colour, "line": {"color": INK, "width": 0.7}},
        text=counts if len(counts) <= 12 else None,
        textposition="outside",
        textangle=0,
        cliponaxis=False,
        hovertemplate="layer %{x}: %{y} neurons",
        row=at[0],
        col=at[1],
    )


def _checked_depth(rows: Sequence[Row], module: str, n_layers: int | Mapping[str, int]) -> int:
    """Layers of a module. ValueError for a neuron outside them."""
    depth = n_layers.get(module, 0) if isinstance(n_layers, Mapping) else n_layers
    outside = sorted({int(row["layer"]) for row in rows if not 0 <= row["layer"] < depth})
    if outside:
        raise ValueError(
            f"Module {module!r} has neurons in layers {outside}, and n_layers gives it {depth}."
        )
    return depth
