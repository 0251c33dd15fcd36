"""At which entropy a module's neurons lie, and which of them a selection took."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.style import GREY, INK, finish, label


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


def entropy_histogram(summary: SelectionSummary, n_bins: int = 60) -> go.Figure:
    """How many neurons have which domain activation probability entropy (nats), 0 to ln k.

    Stacked: neurons with some domain's probability above tau, and those filtered out; at the right
    the low end again, on a scale of its own. Lines mark the entropy cut of the selected and ln k
    (equally active in all k domains). Neurons without an entropy (never active, not finite) are
    counted in the subtitle. ValueError for shapes that differ, no neuron, fewer than two domains,
    or an entropy outside 0..ln k.
    """
    entropy, passes, top = _checked(summary)
    known = np.isfinite(entropy)
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
            look = (name, colour, shape)
            _bars(figure, (edges, counts), look, int(chosen.sum()), column)
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


def _checked(
    summary: SelectionSummary,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], float]:
    """Entropies, who passes, and ln k; ValueError as for the figure."""
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
    return entropy, passes, top


def _bars(
    figure: go.Figure,
    histogram: tuple[npt.NDArray[np.float64], npt.NDArray[np.int_]],
    look: tuple[str, str, str],
    total: int,
    column: int,
) -> None:
    """A histogram (edges, counts) of neurons, with a name, a colour and a pattern."""
    (edges, counts), (name, colour, shape) = histogram, look
    figure.add_bar(
        x=((edges[:-1] + edges[1:]) / 2).tolist(),
        y=counts.tolist(),
        width=float(edges[1] - edges[0]),
        name=f"{name} ({total:,} neurons)",
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
        side, shift = ("right", -6) if x > 0.4 * top else ("left", 6)
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
            xanchor=side,
            align=side,
            xshift=shift,
            bgcolor="rgba(255,255,255,0.85)",
            font={"size": 13},
        )
