"""One prompt through the lens, as a table: a cell per layer and token."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from mmlens.lens.readings import Readings
from mmlens.plots.style import finish, label


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
    figure = go.Figure(_cells(result, row, positions, hide_special))
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


def _cells(result: Readings, row: int, positions: Sequence[int], hide_special: bool) -> go.Heatmap:
    """Entropies of some positions at every layer, the top token in each cell, all of them on hover."""
    layers = range(len(result.layers))
    return go.Heatmap(
        z=result.entropy[:, row, positions].numpy(),
        x=list(range(len(positions))),
        y=list(result.layers),
        text=[
            [label(shown_word(result, layer, row, pos, hide_special)) for pos in positions]
            for layer in layers
        ],
        customdata=[[top_words(result, layer, row, pos) for pos in positions] for layer in layers],
        texttemplate="%{text}",
        colorscale="Cividis",
        colorbar={"title": {"text": "nats"}},
        hovertemplate="layer %{y}, entropy %{z:.2f} nats<br>%{customdata}<extra></extra>",
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
