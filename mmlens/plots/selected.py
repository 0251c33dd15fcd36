"""In which layers the neurons of each modality lie (MINER, stage 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.neurons import NeuronSet
from mmlens.plots.frames import Row, ordered
from mmlens.plots.numbers import span
from mmlens.plots.style import INK, finish, label, styles_of, wrapped

#: Bars of one figure whose patterns can still be distinguished; more get a panel per set.
MOST_BARS = 60


PATTERNS = ("", "/", "x", ".", "\\", "-", "+", "|")


def selected_by_layer(
    sets: Mapping[str, NeuronSet], layers: int, *, modalities: Sequence[str] | None = None
) -> go.Figure:
    """How many neurons of each modality every layer has.

    Bars of a layer side by side; where there would be more than 60 of them, a panel per modality with
    one scale. A neuron of several sets counts in each. ``modalities`` gives order, colours and
    patterns; ``layers`` is the number of layers. ValueError for no sets, a set outside ``layers``, or a
    name that ``modalities`` lacks.
    """
    if not sets:
        raise ValueError("No neuron sets were given: at least one is needed.")
    order = ordered([{"modality": name} for name in sets], "modality", modalities)
    names = list(modalities) if modalities is not None else order
    styles = styles_of(names)
    counts = {name: _per_layer(name, sets[name], layers) for name in order}
    apart = len(order) * layers > MOST_BARS
    panels = len(order) if apart else 1
    figure = make_subplots(
        rows=panels,
        shared_xaxes=True,
        vertical_spacing=0.2 / max(len(order), 2) * 0.6,
    )
    for i, name in enumerate(order):
        place = names.index(name) if name in names else len(names)
        shape = PATTERNS[place % len(PATTERNS)]
        pattern = {"shape": shape, "size": 6, "solidity": 0.4}
        figure.add_bar(
            x=list(range(layers)),
            y=counts[name],
            name=f"{wrapped(name, 28, 1)} ({len(sets[name]):,})",
            marker={
                "color": styles[name].colour,
                "line": {"color": INK, "width": 0.7},
                "pattern": pattern,
            },
            hovertemplate=f"layer %{{x}}: %{{y}} neurons<extra>{label(name)}</extra>",
            row=i + 1 if apart else 1,
            col=1,
        )
    tallest = max(1, *(max(one) for one in counts.values()))
    ticks: Row = {"dtick": 1} if layers <= 12 else {"nticks": 16}
    figure.update_xaxes(range=[-0.6, layers - 0.4], zeroline=False, **ticks)
    figure.update_xaxes(title_text="layer", row=panels)
    figure.update_yaxes(title_text="neurons", range=[0, 1.08 * tallest], tickformat=",d")
    if apart:
        figure.update_yaxes(nticks=4)
    figure.update_layout(bargap=0.25, bargroupgap=0.05, barmode="group", showlegend=True)
    sizes = [len(sets[name]) for name in order]
    return finish(
        figure,
        "Where each modality's neurons lie",
        f"{span(sizes)} neurons per set, in brackets; one in several sets counts in each",
        height=240 + 95 * len(order) if apart and len(order) > 2 else 500,
    )


def _per_layer(name: str, found: NeuronSet, layers: int) -> list[int]:
    """How many neurons of a set every layer has. ValueError for one outside ``layers``."""
    counts = [0] * layers
    for layer, indices in found.per_layer().items():
        if layer >= layers:
            raise ValueError(
                f"The set {name!r} has neurons in layer {layer}, and {layers} layers were given."
            )
        counts[layer] = len(indices)
    return counts
