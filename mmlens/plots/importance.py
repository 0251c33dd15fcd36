"""Importance of every neuron, layer by neuron, by score and token group (MINER, stage 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots
from torch import Tensor

from mmlens.plots.frames import Row
from mmlens.plots.style import INK, PALE, SEQUENTIAL, finish, label, wrapped

#: Columns of cells that one row of maps may have in all: more could not be distinguished.
MOST_COLUMNS = 600


def importance_maps(
    matrix: Float[Tensor, "score group layer neuron"],
    scores: Sequence[str],
    groups: Sequence[str],
    *,
    bins: int | None = None,
    sort_by: tuple[str, str] | None = None,
) -> go.Figure:
    """Importance of every neuron: layer by neuron, a row of maps per score, a column per group.

    Neighbouring neurons of a layer are binned, and a bin shows the largest of its neurons: a mean
    would hide the few that matter. Every score has a colour scale of its own, from 0. A value that is
    not a number is left white, and counted in the subtitle.

    Args:
        matrix: as ``ImportanceScores.matrix()`` gives it, min-max normalised: 0 to 1.
        scores: names of its first axis.
        groups: names of its second axis.
        bins: bins per layer; at most, and by default, 600 over all groups of a row.
        sort_by: (score, group): each layer's neurons in falling order of that score of that group, the
            same order in all maps. Default: as they lie in the model.

    Raises:
        ValueError: names that do not fit the axes, an empty axis, bins below 1, or a ``sort_by`` that
            is not there.
    """
    _check_names(matrix, scores, groups, bins)
    values = matrix.double().cpu().numpy()
    if sort_by is not None:
        values = _sorted(values, scores, groups, sort_by)
    layers, width = values.shape[2:]
    binned, centres, size = _binned(values, min(bins or MOST_COLUMNS, MOST_COLUMNS // len(groups)))
    figure = make_subplots(
        rows=len(scores),
        cols=len(groups),
        shared_xaxes=True,
        shared_yaxes=True,
        column_titles=[wrapped(group, 10) for group in groups],
        vertical_spacing=0.2 / max(len(scores), 2) * 0.6,
        horizontal_spacing=0.015,
    )
    figure.update_annotations(font={"size": 14}, yshift=2)
    for i, score in enumerate(scores):
        for j, group in enumerate(groups):
            name = f"{label(score)}, {label(group)}"
            _map(figure, binned[i, j], centres, name, (i + 1, j + 1))
            _say_if_flat(figure, values[i, j], (i + 1, j + 1))
        figure.update_yaxes(title_text=f"<b>{wrapped(score, 14)}</b><br>layer", row=i + 1, col=1)
    figure.update_layout(_scales(figure, binned, scores))
    _map_axes(figure, layers, "rank" if sort_by else "neuron", len(scores))
    seen = "every neuron shown" if size == 1 else f"a cell is the largest of up to {size} neurons"
    bad = int((~np.isfinite(values)).sum())
    return finish(
        figure,
        "Importance of the neurons, by score and token group",
        f"{layers} layers of {width:,}; {seen}"
        + (f"; sorted by {label(sort_by[0])} of {label(sort_by[1])}" if sort_by else "")
        + (f"; {bad:,} values are not finite" if bad else ""),
        height=150 + 150 * max(len(scores), 2),
        margin={"t": 125, "r": 75},
    )


def _map(
    figure: go.Figure,
    values: npt.NDArray[np.float64],
    centres: Sequence[float],
    name: str,
    at: tuple[int, int],
) -> None:
    """One map, layer by bin, on the colour scale of its row."""
    figure.add_heatmap(
        z=np.round(values, 4).tolist(),
        x=centres,
        y=list(range(len(values))),
        coloraxis=f"coloraxis{at[0]}",
        hoverongaps=False,
        name=name,
        hovertemplate="layer %{y}, neuron %{x:.0f}: %{z:.3f}",
        row=at[0],
        col=at[1],
    )


def _map_axes(figure: go.Figure, layers: int, name: str, last_row: int) -> None:
    """Frames around the maps, few ticks; what lies across is named below the last row."""
    ticks: Row = {"dtick": 1} if layers <= 8 else {"nticks": 5}
    look: Row = {"showgrid": False, "zeroline": False, "showline": True, "mirror": True}
    figure.update_yaxes(**look, linecolor=PALE, **ticks)
    figure.update_xaxes(**look, linecolor=PALE, nticks=4)
    figure.update_xaxes(title_text=name, row=last_row)


def _sorted(
    values: npt.NDArray[np.float64],
    scores: Sequence[str],
    groups: Sequence[str],
    by: tuple[str, str],
) -> npt.NDArray[np.float64]:
    """Each layer's neurons in falling order of one score of one group; not a number comes last."""
    if by[0] not in scores or by[1] not in groups:
        raise ValueError(
            f"sort_by was {by}: a score of {list(scores)} and a group of {list(groups)} are needed."
        )
    key = values[list(scores).index(by[0]), list(groups).index(by[1])]
    order = np.argsort(-np.nan_to_num(key, nan=-np.inf), axis=-1, kind="stable")
    return np.take_along_axis(values, order[None, None], axis=-1)


def _check_names(
    matrix: Float[Tensor, "score group layer neuron"],
    scores: Sequence[str],
    groups: Sequence[str],
    bins: int | None,
) -> None:
    if (len(scores), len(groups)) != matrix.shape[:2] or not matrix.numel():
        raise ValueError(
            f"Importance {tuple(matrix.shape)} = (score, group, layer, neuron) was given with "
            f"{len(scores)} scores and {len(groups)} groups: each needs a name, and no axis is empty."
        )
    if bins is not None and bins < 1:
        raise ValueError(f"bins must be 1 or more, {bins} was given.")


def _say_if_flat(figure: go.Figure, values: npt.NDArray[np.float64], at: tuple[int, int]) -> None:
    """Words in a map that has one value, or none: a blank map would say neither."""
    known = values[np.isfinite(values)]
    if known.size and known.min() < known.max():
        return
    text = f"all {known[0]:.3g}" if known.size else "no values"
    figure.add_annotation(
        x=0.5,
        y=0.5,
        xref="x domain",
        yref="y domain",
        text=text,
        showarrow=False,
        font={"size": 13, "color": INK},
        bgcolor="rgba(255,255,255,0.85)",
        row=at[0],
        col=at[1],
    )


def _binned(
    values: npt.NDArray[np.float64], bins: int
) -> tuple[npt.NDArray[np.float64], list[float], int]:
    """The largest finite value of each run of neighbours (last axis), its middle, neurons per run."""
    width = values.shape[-1]
    size = math.ceil(width / max(bins, 1))
    count = math.ceil(width / size)
    # The last run may be short: -inf never wins, and where nothing else is there it becomes NaN.
    padded = np.full((*values.shape[:-1], count * size), -np.inf)
    padded[..., :width] = np.where(np.isfinite(values), values, -np.inf)
    largest = padded.reshape(*values.shape[:-1], count, size).max(axis=-1)
    ends = [(i * size, min((i + 1) * size, width) - 1) for i in range(count)]
    return np.where(np.isinf(largest), np.nan, largest), [(a + b) / 2 for a, b in ends], size


def _scales(
    figure: go.Figure, binned: npt.NDArray[np.float64], scores: Sequence[str]
) -> dict[str, Row]:
    """A colour scale per score, its bar beside its row of maps."""
    scales = {}
    for i in range(len(scores)):
        low, high = next(figure.select_yaxes(row=i + 1, col=1)).domain
        known = binned[i][np.isfinite(binned[i])]
        bar = {"thickness": 12, "len": high - low, "y": (low + high) / 2, "nticks": 4, "x": 1.01}
        scales[f"coloraxis{i + 1}"] = {
            "colorscale": SEQUENTIAL,
            "cmin": min(0.0, float(known.min())) if known.size else 0.0,
            "cmax": (float(known.max()) if known.size else 0.0) or 1.0,
            "colorbar": bar,
        }
    return scales
