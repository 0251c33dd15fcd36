"""The logit lens over the layers: entropy, and the probability of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.frames import LENS_COLUMNS, checked_rows
from mmlens.plots.numbers import span
from mmlens.plots.style import DomainStyle, domain_styles, finish, label

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
            dtick=layer_step(int(frame.layer.max())),
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
    figure.update_xaxes(
        title="decoder layer", dtick=layer_step(int(rows.layer.max())), zeroline=False
    )
    figure.update_yaxes(title="probability of the answer", range=[0, 1.02])
    return finish(
        figure,
        "A picture turns into words",
        f"Probability that the lens gives the answer's first token at the last position; mean over "
        f"{rows.id.nunique():,} samples.",
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


def layer_step(last: int) -> int:
    """Distance of ticks so that layers are named at most twenty times."""
    return max(1, round(last / 20))
