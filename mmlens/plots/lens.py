"""Figures of the logit lens: entropy and the answer over the layers, the stages, one prompt's table.

Part of :mod:`mmlens.plots`, which offers them by name; kept apart for length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.lens.stages import Stages
from mmlens.plots.style import (
    GREY,
    INK,
    DomainStyle,
    checked_rows,
    domain_styles,
    finish,
    label,
    span,
)

if TYPE_CHECKING:
    from mmlens.lens.readings import Readings

LENS_COLUMNS = ("id", "key", "group", "layer", "entropy")
#: Fillings of stacked bars, which in greyscale colour alone does not tell apart.
FILLINGS = ("", "/", ".", "x", "-", "\\", "+", "|")
#: Between these shares of the samples lies the band.
BAND = (0.1, 0.9)


def entropy_by_layer(
    frame: pd.DataFrame,
    groups: Sequence[str] = ("image", "text"),
    domains: Sequence[str] | None = None,
) -> go.Figure:
    """Lens entropy per layer (MM-7): a panel per token group, a line per domain, mean and band.

    Args:
        frame: of :class:`mmlens.lens.study.LensStudy`.
        groups: the groups drawn, those without tokens left out.
        domains: order of the domains.

    Raises:
        ValueError: a column is missing, or no row of these groups.
    """
    checked_rows(frame, LENS_COLUMNS, "lens")
    frame = frame.dropna(subset="entropy")
    present = [group for group in groups if (frame.group == group).any()]
    if not present:
        raise ValueError(f"The lens frame has no tokens of {', '.join(groups)}.")
    domains = list(domains or dict.fromkeys(frame.key))
    figure = make_subplots(cols=len(present), shared_yaxes=True, horizontal_spacing=0.04)
    for column, group in enumerate(present, start=1):
        for domain, style in domain_styles(domains).items():
            table = _per_sample(frame, group, domain, "entropy")
            if not table.empty:
                _banded_line(figure, table, domain, style, column, "nats")
        figure.update_xaxes(
            title=f"decoder layer, {group} tokens",
            dtick=_step(int(frame.layer.max())),
            zeroline=False,
            col=column,
        )
    figure.update_yaxes(title="entropy (nats)", rangemode="tozero", col=1)
    samples = frame.groupby("key").id.nunique()
    return finish(
        figure,
        "How sure the lens is, layer by layer",
        f"Mean over samples; band: {BAND[0]:.0%} to {BAND[1]:.0%} of them. "
        f"{span(samples.tolist())} samples per domain.",
    )


def answer_by_layer(frame: pd.DataFrame, domains: Sequence[str] | None = None) -> go.Figure:
    """Probability of the answer's first token at the prompt's last position, per layer.

    Args:
        frame: of :class:`mmlens.lens.study.LensStudy`, with the group ``last``.
        domains: order of the domains.

    Raises:
        ValueError: no sample has an answer.
    """
    checked_rows(frame, (*LENS_COLUMNS, "answer_p"), "lens")
    rows: pd.DataFrame = frame.query("group == 'last' and answer_p.notna()", engine="python")
    if rows.empty:
        raise ValueError("The lens frame has no answers: it needs the group 'last' and answers.")
    domains = list(domains or dict.fromkeys(rows.key))
    figure = make_subplots()
    for domain, style in domain_styles(domains).items():
        table = _per_sample(rows, "last", domain, "answer_p")
        if not table.empty:
            _banded_line(figure, table, domain, style, 1, "", band=False)
    figure.update_xaxes(title="decoder layer", dtick=_step(int(rows.layer.max())), zeroline=False)
    figure.update_yaxes(title="probability of the answer", range=[0, 1.02])
    return finish(
        figure,
        "A picture turns into words",
        f"Probability that the lens gives the answer's first token at the last position; mean over "
        f"{rows.id.nunique():,} samples.",
    )


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
    figure.update_xaxes(title="decoder layer", dtick=_step(layers[-1]), zeroline=False)
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


def lens_table(
    result: Readings,
    row: int = 0,
    *,
    groups: Sequence[str] = ("text", "special"),
    hide_special: bool = True,
    most: int = 40,
) -> go.Figure:
    """One prompt through the lens: a cell per layer and token, its top token in it, entropy as shade.

    Args:
        result: of :func:`mmlens.logit_lens`.
        row: the sample.
        groups: token groups shown; image tokens are better seen on the picture.
        hide_special: write the best token that is not special.
        most: positions shown at most, the last ones.

    Raises:
        ValueError: no position of these groups was read.
    """
    read = ~result.entropy[0, row].isnan()
    wanted = result.batch.groups.stack(list(groups)).any(0)[row].cpu() & read
    positions = wanted.nonzero()[:, 0].tolist()[-most:]
    if not positions:
        raise ValueError(f"No position of {', '.join(groups)} was read in row {row}.")
    ids = result.batch.input_ids[row, positions].tolist()
    figure = go.Figure(
        go.Heatmap(
            z=result.entropy[:, row, positions].numpy(),
            x=list(range(len(positions))),
            y=list(result.layers),
            text=[
                [label(shown_word(result, layer, row, pos, hide_special)) for pos in positions]
                for layer in range(len(result.layers))
            ],
            customdata=[
                [top_words(result, layer, row, pos) for pos in positions]
                for layer in range(len(result.layers))
            ],
            texttemplate="%{text}",
            colorscale="Cividis",
            colorbar={"title": {"text": "nats"}},
            hovertemplate="layer %{y}, entropy %{z:.2f} nats<br>%{customdata}<extra></extra>",
        )
    )
    figure.update_xaxes(
        tickvals=list(range(len(positions))),
        ticktext=[label(result.word(token).strip() or "␣") for token in ids],
        tickangle=-45,
        title="token of the prompt",
    )
    figure.update_yaxes(title="decoder layer", dtick=1, showgrid=False)
    samples = result.batch.samples
    name = "" if samples is None else f"Sample {label(samples[row].id)}. "
    return finish(
        figure,
        "What each layer would say next",
        f"{name}Cell: the most probable token; dark: sure (low entropy). Read at {result.point}.",
        height=max(420, 150 + 34 * len(result.layers)),
    )


def shown_word(result: Readings, layer: int, row: int, pos: int, hide_special: bool) -> str:
    """The top token, or the best that is not special; its blanks stripped."""
    ids = result.top_ids[layer, row, pos].tolist()
    plain = [token for token in ids if token not in result.special]
    chosen = plain if hide_special and plain else ids
    return result.word(chosen[0]).strip() or "␣"


def top_words(result: Readings, layer: int, row: int, pos: int) -> str:
    """The top tokens with their probabilities, a line each."""
    ids = result.top_ids[layer, row, pos].tolist()
    shares = result.top_probabilities[layer, row, pos].tolist()
    return "<br>".join(
        f"{share:.1%} {label(result.word(token).strip() or '␣')}"
        for token, share in zip(ids, shares, strict=True)
    )


def _per_sample(frame: pd.DataFrame, group: str, key: str, value: str) -> pd.DataFrame:
    """A row per sample, a column per layer."""
    rows: Any = frame[(frame.group == group) & (frame.key == key)]
    return rows.pivot(index="id", columns="layer", values=value)


def _banded_line(
    figure: go.Figure,
    table: pd.DataFrame,
    domain: str,
    style: DomainStyle,
    column: int,
    unit: str,
    band: bool = True,
) -> None:
    layers = list(table.columns)
    if band:
        low, high = (table.quantile(q).to_numpy() for q in BAND)
        figure.add_scatter(
            x=[*layers, *layers[::-1]],
            y=np.concatenate([high, low[::-1]]),
            mode="lines",
            fill="toself",
            fillcolor=style.colour,
            opacity=0.12,
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            legendgroup=domain,
            row=1,
            col=column,
        )
    figure.add_scatter(
        x=layers,
        y=table.mean().to_numpy(),
        name=label(domain),
        legendgroup=domain,
        showlegend=column == 1,
        mode="lines+markers",
        line={"color": style.colour, "dash": style.dash, "width": 2.5},
        marker={"symbol": style.symbol, "size": 8},
        hovertemplate=f"layer %{{x}}: %{{y:.2f}} {unit}<extra>{label(domain)}</extra>",
        row=1,
        col=column,
    )


def _step(last: int) -> int:
    """Distance of ticks so that layers are named at most twenty times."""
    return max(1, round(last / 20))
