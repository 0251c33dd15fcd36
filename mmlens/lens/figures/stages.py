"""The three stages: the lens's entropy with its bends, over the domain neurons of each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.lens.stages import Stages
from mmlens.plots.lens import layer_step
from mmlens.plots.style import GREY, INK, domain_styles, finish, label

#: Fillings of stacked bars, whose colours look alike in greyscale.
FILLINGS = ("", "/", ".", "x", "-", "\\", "+", "|")


def stages_figure(
    stages: Stages,
    neurons: Mapping[str, Sequence[int]],
    *,
    group: str = "image",
    module: str = "language",
) -> go.Figure:
    """Entropy with its bends, over the domain neurons of each layer, on one axis (MM-9).

    Args:
        stages: of :func:`mmlens.lens.stages.find_stages`.
        neurons: domain -> how many of its neurons lie in each of the decoder's layers.
        group: the tokens that the entropy is of.
        module: the module that the neurons are of.
    """
    layers = list(stages.layers)
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    _bars(figure, neurons)
    _bent_line(figure, stages, group)
    figure.update_xaxes(title="decoder layer", dtick=layer_step(layers[-1]), zeroline=False)
    figure.update_yaxes(title=f"domain neurons ({module})", showgrid=False, secondary_y=False)
    # What is drawn on the second axis lies above the first one's bars.
    figure.update_yaxes(
        title="entropy (nats)", rangemode="tozero", tickmode="auto", nticks=6, secondary_y=True
    )
    figure.update_layout(barmode="stack", bargap=0.55)
    words = [
        f"{one.first} to {one.last}: {one.direction} ({one.slope:+.2f} [{one.low:+.2f}, {one.high:+.2f}])"
        for one in stages.stages
    ]
    return finish(
        figure,
        "Three stages?",
        "Nats per layer, layers " + "; ".join(words) + ". Grey: 95 % interval of each bend; "
        f"{stages.n_samples:,} samples.",
        height=540,
    )


def _bars(figure: go.Figure, neurons: Mapping[str, Sequence[int]]) -> None:
    """How many of each domain's neurons lie in each layer, stacked."""
    for i, (domain, style) in enumerate(domain_styles(list(neurons)).items()):
        figure.add_bar(
            x=list(range(len(neurons[domain]))),
            y=list(neurons[domain]),
            name=label(domain),
            marker={
                "color": style.colour,
                "opacity": 0.75,
                "line": {"color": INK, "width": 0.5},
                "pattern": {"shape": FILLINGS[i % len(FILLINGS)], "solidity": 0.25},
            },
            hovertemplate="layer %{x}: %{y} neurons<extra>%{fullData.name}</extra>",
        )


def _bent_line(figure: go.Figure, stages: Stages, group: str) -> None:
    """The mean curve, the line that fits it, its bends with their intervals."""
    layers = list(stages.layers)
    figure.add_scatter(
        x=layers,
        y=stages.fitted,
        name="bent line",
        mode="lines",
        line={"color": GREY, "width": 2, "dash": "dash"},
        hoverinfo="skip",
        secondary_y=True,
    )
    figure.add_scatter(
        x=layers,
        y=stages.mean,
        name=f"entropy of {group} tokens",
        mode="lines+markers",
        line={"color": INK, "width": 3},
        marker={"size": 8},
        hovertemplate="layer %{x}: %{y:.2f} nats<extra></extra>",
        secondary_y=True,
    )
    for bend, (low, high) in zip(stages.bends, stages.intervals, strict=True):
        figure.add_vrect(low - 0.12, high + 0.12, fillcolor=GREY, opacity=0.13, line_width=0)
        figure.add_vline(bend, line={"color": INK, "dash": "dot", "width": 1.5})
