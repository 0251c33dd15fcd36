"""The spread of a neuron's activations, key by key, as HTML: how often it is active, and a histogram."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor

from mmlens.cards.card import Card, CardPage
from mmlens.report.html import text
from mmlens.statistics.top_activations import bin_edges

_WIDE, _HIGH = 150.0, 26.0


def spread(page: CardPage, card: Card) -> str:
    """One row per key: its name, how often the neuron is active, and its activations' histogram."""
    first, last = _range(card.histogram)
    edges = bin_edges().tolist()
    total = card.histogram.sum(-1, keepdim=True).clamp(min=1)
    shares = (card.histogram / total)[:, first : last + 1]
    peak = max(float(shares.max()), 1e-9)
    rows = []
    for key, probability, share in zip(page.keys, card.probabilities, shares.tolist(), strict=True):
        own = " own" if key in card.labels else ""
        said = "none" if math.isnan(probability) else f"{100 * probability:.1f}%"
        width = 0.0 if math.isnan(probability) else 100 * probability
        rows.append(
            f'<div class="key{own}">{text(key)}</div>'
            f'<div class="bar"><i style="width:{width:.1f}%"></i><b>{said}</b></div>'
            f"{_bars(share, peak, first, edges)}"
        )
    return (
        '<h3>Activation</h3><div class="spread"><div class="head">' + text(page.by) + "</div>"
        '<div class="head">active on</div><div class="head">distribution</div>'
        + "".join(rows)
        + f"<div></div><div></div>{_axis(first, last, edges)}</div>"
    )


def _range(histogram: Int[Tensor, "key bin"]) -> tuple[int, int]:
    """First and last bin that any key uses; never none, and always both sides of zero."""
    used = histogram.sum(0).nonzero()[:, 0].tolist()
    zero = len(bin_edges()) // 2
    return min([*used, zero]), max([*used, zero + 1])


def _bars(shares: Sequence[float], peak: float, first: int, edges: Sequence[float]) -> str:
    step = _WIDE / len(shares)
    zero = (edges.index(0.0) + 1 - first) * step
    parts = []
    for number, share in enumerate(shares):
        if share > 0:
            high = max(_HIGH * share / peak, 0.6)
            kind = "on" if number * step >= zero - 1e-6 else "off"
            parts.append(
                f'<rect class="{kind}" x="{number * step:.2f}" y="{_HIGH - high:.2f}" '
                f'width="{step:.2f}" height="{high:.2f}"/>'
            )
    line = f'<line x1="{zero:.2f}" x2="{zero:.2f}" y1="0" y2="{_HIGH}"/>'
    return (
        f'<svg class="histogram" viewBox="0 0 {_WIDE:g} {_HIGH:g}" preserveAspectRatio="none">'
        f"{''.join(parts)}{line}</svg>"
    )


def _axis(first: int, last: int, edges: Sequence[float]) -> str:
    """Zero and the outermost edges, in numbers."""
    number = last - first + 1
    zero = edges.index(0.0)
    ticks = [(zero, "0")]
    ticks += [(edge, _number(edges[edge])) for edge in (first, last - 1) if edge != zero]
    marks = "".join(
        f'<span style="left:{100 * (edge + 1 - first) / number:.1f}%">{label}</span>'
        for edge, label in ticks
    )
    return f'<div class="axis">{marks}</div>'


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
