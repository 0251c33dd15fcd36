"""Where neurons lie: how many each domain has, in which layers, and at which entropy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.style import GREY, INK, Row, checked_rows, domain_styles, finish, label, percent

NEURON_COLUMNS = ("module", "layer", "index", "fraction", "domains")


@dataclass(frozen=True, eq=False)
class SelectionSummary:
    """What the selection of one module's domain neurons saw and decided.

    ``entropy`` [layer, neuron] is the domain activation probability entropy in nats; ``passes``
    [layer, neuron] says whether some domain's activation probability lies above ``tau``, the 95th
    percentile of all probabilities (``quantile`` of them); ``cut`` is the largest entropy (nats) among the ``n_selected``
    neurons, not finite when none was selected.
    """

    module: str
    domains: tuple[str, ...]
    entropy: npt.NDArray[np.floating[Any]]
    passes: npt.NDArray[np.bool_]
    tau: float
    cut: float
    n_selected: int
    quantile: float = 0.95


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
    return chosen, order, list(dict.fromkeys(str(row["module"]) for row in chosen))


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
    hatch = {"shape": "/", "size": 7, "solidity": 0.5}
    patterns = {"exclusive": {"shape": ""}, "shared": hatch}
    for column, module in enumerate(modules, start=1):
        found = [row["labels"] for row in rows if row["module"] == module]
        carrying = {domain: [ls for ls in found if domain in ls] for domain in order}
        counts = {
            "exclusive": [sum(len(ls) == 1 for ls in carrying[d]) for d in order],
            "shared": [sum(len(ls) > 1 for ls in carrying[d]) for d in order],
        }
        for kind, values in counts.items():
            marker = {
                "color": [styles[domain].colour for domain in order],
                "line": {"color": INK, "width": 0.7},
                "pattern": patterns[kind],
            }
            figure.add_bar(
                x=values,
                y=names,
                name=kind,
                orientation="h",
                marker=marker,
                showlegend=False,
                hovertemplate=f"%{{y}}: %{{x}} {kind}<extra>{label(module)}</extra>",
                row=1,
                col=column,
            )
        totals = [len(carrying[domain]) for domain in order]
        figure.add_scatter(
            x=totals,
            y=names,
            mode="text",
            textposition="middle right",
            name="total",
            text=[
                f" {t} = {e} + {s}"
                for t, e, s in zip(totals, counts["exclusive"], counts["shared"], strict=True)
            ],
            showlegend=False,
            hoverinfo="skip",
            row=1,
            col=column,
        )
        # The narrower a panel, the more of it the sums beside the bars take.
        room = max(totals) * (0.9 + 0.35 * len(modules)) + 1
        figure.update_xaxes(title_text="neurons", range=[0, room], row=1, col=column)
    for kind, name in (("exclusive", "exclusive: one label"), ("shared", "shared: several labels")):
        # Bars vary in colour by domain: the legend shows the patterns alone, in grey.
        figure.add_bar(
            x=[None],
            y=[None],
            name=name,
            orientation="h",
            marker={"color": GREY, "pattern": patterns[kind]},
        )
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
    # Row titles stand sideways at the right by default; upright at the left they are read first.
    upright = {"textangle": 0, "x": 0, "xanchor": "right", "xshift": -34, "font": {"size": 14}}
    figure.update_annotations(selector={"textangle": 90}, **upright)
    figure.update_annotations(selector={"yanchor": "bottom"}, font={"size": 14})
    tallest = 1
    for column, module in enumerate(modules, start=1):
        depth = n_layers.get(module, 0) if isinstance(n_layers, Mapping) else n_layers
        mine = [row for row in rows if row["module"] == module]
        outside = sorted({int(row["layer"]) for row in mine if not 0 <= row["layer"] < depth})
        if outside:
            raise ValueError(
                f"Module {module!r} has neurons in layers {outside}, and n_layers gives it {depth}."
            )
        for i, domain in enumerate(order, start=1):
            layers = [int(row["layer"]) for row in mine if domain in row["labels"]]
            counts = np.bincount(layers, minlength=depth).tolist()
            tallest = max(tallest, *counts)
            figure.add_bar(
                x=list(range(depth)),
                y=counts,
                name=label(domain),
                marker={"color": styles[domain].colour, "line": {"color": INK, "width": 0.7}},
                text=counts if depth <= 12 else None,
                textposition="outside",
                textangle=0,
                cliponaxis=False,
                hovertemplate="layer %{x}: %{y} neurons",
                row=i,
                col=column,
            )
        ticks: Row = {"dtick": 1} if depth <= 12 else {"nticks": 12}
        figure.update_xaxes(zeroline=False, range=[-0.6, depth - 0.4], col=column, **ticks)
        figure.update_xaxes(title_text="layer", row=len(order), col=column)
    figure.update_yaxes(range=[0, 1.5 * tallest], nticks=3, tickformat="d", showticklabels=True)
    figure.update_layout(showlegend=False, bargap=0.25)
    finish(
        figure,
        "Where the domain neurons lie",
        f"Neurons per layer at fraction {percent(fraction)}; a neuron counts under each label",
        height=max(500, 150 + 68 * len(order)),
    )
    widest = max(len(domain) for domain in order)
    return figure.update_layout(margin={"t": 105, "l": 45 + 8 * widest})


def entropy_histogram(summary: SelectionSummary, n_bins: int = 60) -> go.Figure:
    """How many neurons have which domain activation probability entropy (nats), 0 to ln k.

    Stacked: neurons with some domain's probability above tau, and those filtered out; at the right
    the low end again, on a scale of its own. Lines mark the entropy cut of the selected and ln k
    (equally active in all k domains). Neurons without an entropy (never active, not finite) are
    counted in the subtitle. ValueError for shapes that differ, no neuron, fewer than two domains,
    or an entropy outside 0..ln k.
    """
    entropy = np.asarray(summary.entropy, dtype=np.float64)
    passes = np.asarray(summary.passes, dtype=bool)
    if entropy.shape != passes.shape or entropy.size == 0 or len(summary.domains) < 2:
        raise ValueError(
            f"Entropy {entropy.shape} and passes {passes.shape} over {len(summary.domains)} domains"
            " were given: equal shapes with a neuron, and two domains or more, are needed."
        )
    top = math.log(len(summary.domains))
    known = np.isfinite(entropy)
    # Rounding in single precision may put an entropy a little past either end.
    if np.any(known & ((entropy < -1e-4) | (entropy > top + 1e-4))):
        raise ValueError(
            f"Entropies {np.min(entropy[known]):.4g} to {np.max(entropy[known]):.4g} were given: "
            f"over {len(summary.domains)} domains they lie within 0 to {top:.4g} nats."
        )
    figure = make_subplots(cols=2, column_widths=[0.6, 0.4], horizontal_spacing=0.09)
    # The selected are few: without a panel and bins of their own they could not be seen.
    low, near = _low_end(summary, entropy[known & passes], top)
    bins = {1: np.linspace(0.0, top, n_bins + 1), 2: np.linspace(low, near, n_bins // 2 + 1)}
    tallest = {column: np.zeros(len(edges) - 1, dtype=int) for column, edges in bins.items()}
    for name, chosen, colour, shape in (
        (f"some domain above tau = {summary.tau:.3g}", known & passes, "#0072B2", ""),
        ("filtered out: none above tau", known & ~passes, "#c9ced6", "/"),
    ):
        for column, edges in bins.items():
            counts, _ = np.histogram(np.clip(entropy[chosen], 0.0, top), edges)
            tallest[column] += counts
            figure.add_bar(
                x=((edges[:-1] + edges[1:]) / 2).tolist(),
                y=counts.tolist(),
                width=float(edges[1] - edges[0]),
                name=f"{name} ({int(chosen.sum()):,} neurons)",
                legendgroup=name,
                showlegend=column == 1,
                marker={
                    "color": colour,
                    "line": {"color": INK, "width": 0.4},
                    "pattern": {"shape": shape, "fgcolor": GREY, "size": 5},
                },
                hovertemplate="%{x:.3f} nats: %{y} neurons<extra></extra>",
                row=1,
                col=column,
            )
    _entropy_lines(figure, summary, top)
    figure.update_layout(barmode="stack", bargap=0, legend={"traceorder": "normal"})
    figure.update_xaxes(title_text="entropy (nats)", zeroline=False)
    figure.update_xaxes(range=[-0.02 * top, 1.02 * top], col=1)
    figure.update_xaxes(range=[low, near], title_text="entropy (nats), low end", col=2)
    figure.update_yaxes(title_text="neurons", col=1)
    for column, counts in tallest.items():
        figure.update_yaxes(range=[0, 1.3 * max(int(counts.max()), 1)], col=column)
    silent = f"; {int((~known).sum()):,} never active, not shown" if not known.all() else ""
    return finish(
        figure,
        f"Domain activation probability entropy, {label(summary.module)} neurons",
        f"{entropy.size:,} neurons, {len(summary.domains)} domains; tau is the {summary.quantile:g} "
        f"quantile of all activation probabilities{silent}",
    )


def _low_end(
    summary: SelectionSummary, passing: npt.NDArray[np.float64], top: float
) -> tuple[float, float]:
    """From the lowest entropy that passes the filter to a little past the cut of the selected."""
    if not math.isfinite(summary.cut) or not passing.size:
        return 0.0, top / 2
    lowest = float(passing.min())
    margin = max(0.15 * (summary.cut - lowest), 0.005 * top)
    return max(lowest - margin, 0.0), min(summary.cut + margin, top)


def _entropy_lines(figure: go.Figure, summary: SelectionSummary, top: float) -> None:
    """Mark ln k in the left panel, the entropy cut of the selected in both and its name right."""
    even = f"ln {len(summary.domains)} = {top:.3f}<br>equally active<br>in all domains"
    # Below one another, for a cut close to ln k.
    marks = [(top, even, "dot", 1, 1.0)]
    if math.isfinite(summary.cut):
        share = 100 * summary.n_selected / np.asarray(summary.entropy).size
        selected = f"{summary.n_selected:,} selected ({share:.2g}% of all)"
        marks.append((summary.cut, "entropy<br>cut", "dash", 1, 0.75))
        marks.append((summary.cut, f"entropy cut {summary.cut:.3f}<br>{selected}", "dash", 2, 1.0))
    for x, text, dash, column, height in marks:
        axis = "" if column == 1 else "2"
        figure.add_shape(
            x0=x,
            x1=x,
            y0=0,
            y1=1,
            xref=f"x{axis}",
            yref=f"y{axis} domain",
            line={"color": INK, "dash": dash, "width": 2},
        )
        figure.add_annotation(
            x=x,
            y=height,
            xref=f"x{axis}",
            yref=f"y{axis} domain",
            yanchor="top",
            text=text,
            showarrow=False,
            xanchor="right" if x > 0.4 * top else "left",
            align="right" if x > 0.4 * top else "left",
            xshift=-6 if x > 0.4 * top else 6,
            bgcolor="rgba(255,255,255,0.85)",
            font={"size": 13},
        )
