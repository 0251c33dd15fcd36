"""Figures of token states: measures per layer beside their baselines, scatter plots.

What is drawn is OUR definition throughout (methods section 6): MINER shows such pictures and defines
no number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.frames import METRIC_COLUMNS, SCATTER_COLUMNS, Row, checked_rows, in_order
from mmlens.plots.numbers import span
from mmlens.plots.state_panels import GROUP_LOOKS, look_of, panels_by_setting, setting_name
from mmlens.plots.style import finish, label, upright_titles

SEPARATION_NAMES = {
    "silhouette": "silhouette",
    "purity": "purity of the<br>10 nearest",
    "centroid_cosine": "cosine of<br>centroids",
    "probe": "linear probe,<br>balanced accuracy",
}


INDEX_NAMES = {
    "probing": "probing<br>index",
    "telomere": "telomere index:<br>adjacent text",
    "telomere_any": "nearest is<br>any text",
}


METHOD_NAMES = {"tsne": "t-SNE", "pca": "PCA"}


def separation_by_layer(metrics: pd.DataFrame, groups: str | None = None) -> go.Figure:
    """How far apart token groups lie, per layer (MI-9): a row per measure, a column per setting.

    The solid line is the measure, the band its baseline of labels permuted within samples; beside a
    masked setting the untouched one is drawn thin. Columns: :data:`METRIC_COLUMNS`, as
    :func:`mmlens.states.tables.metric_table` gives them.

    Args:
        metrics: the frame.
        groups: which groups, such as ``text+audio``; default: the first in the frame.

    Raises:
        ValueError: a missing column, or groups that are not there.
    """
    every = checked_rows(metrics, METRIC_COLUMNS, "metrics")
    rows = [row for row in every if row["metric"] in SEPARATION_NAMES]
    given = in_order(rows, "groups")
    if not rows or (groups is not None and groups not in given):
        raise ValueError(
            f"The metrics frame compares the groups {given}, and {groups!r} was asked for."
        )
    chosen = groups or given[0]
    rows = [row for row in rows if row["groups"] == chosen]
    present = in_order(rows, "metric")
    panels = [(m, chosen, name) for m, name in SEPARATION_NAMES.items() if m in present]
    return finish(
        panels_by_setting(rows, panels),
        f"Do {_listed(chosen)} tokens lie apart?",
        f"Residual stream after each block (in: what enters the first); "
        f"{span([r['n_tokens'] for r in rows])} tokens of {span([r['n_samples'] for r in rows])} samples",
        height=190 + 130 * len(panels),
        margin={"t": 150, "l": 180},
    )


def indices_by_layer(metrics: pd.DataFrame) -> go.Figure:
    """Probing and telomere indices per layer (MI-11): a row per index and group, a column per setting.

    Lines have a 95% bootstrap band over samples, baselines their 95% range over permutations. Columns
    as in :func:`separation_by_layer`.

    Raises:
        ValueError: a missing column, or no index.
    """
    every = checked_rows(metrics, METRIC_COLUMNS, "metrics")
    rows = [row for row in every if row["metric"] in INDEX_NAMES]
    if not rows:
        raise ValueError(f"The metrics frame has none of the indices {list(INDEX_NAMES)}.")
    panels = []
    for metric, name in INDEX_NAMES.items():
        for group in in_order([r for r in rows if r["metric"] == metric], "groups"):
            of_group = f",<br>{label(group)}" if metric == "probing" else ""
            panels.append((metric, group, name + of_group))
    return finish(
        panels_by_setting(rows, panels, share=True),
        "Which tokens reach out to others?",
        f"Share of the group's tokens, mean over {span([r['n_samples'] for r in rows])} samples",
        height=190 + 130 * len(panels),
        margin={"t": 150, "l": 180},
    )


def state_scatter(coordinates: pd.DataFrame, method: str = "tsne") -> go.Figure:
    """Token states in the plane (MI-9): a row per setting, a column per layer, a dot per token.

    Columns: :data:`SCATTER_COLUMNS`, as :func:`mmlens.states.tables.scatter_table` gives them.
    ValueError for a missing column, or a method that is not there.
    """
    every = checked_rows(coordinates, SCATTER_COLUMNS, "coordinates")
    rows = [row for row in every if row["method"] == method]
    if not rows:
        given = sorted({str(row["method"]) for row in every})
        raise ValueError(
            f"The coordinates are of the methods {given}, and {method!r} was asked for."
        )
    settings, layers = in_order(rows, "setting"), sorted({int(row["layer"]) for row in rows})
    known, given = list(GROUP_LOOKS), in_order(rows, "group")
    groups = [*(g for g in known if g in given), *(g for g in given if g not in known)]
    figure = make_subplots(
        rows=len(settings),
        cols=len(layers),
        column_titles=["before the first block" if n < 0 else f"after layer {n}" for n in layers],
        row_titles=[setting_name(setting) for setting in settings],
        horizontal_spacing=0.02,
        vertical_spacing=0.03,
    )
    for i, setting in enumerate(settings, start=1):
        for j, layer in enumerate(layers, start=1):
            for group in groups:
                key = (setting, layer, group)
                here = [r for r in rows if (r["setting"], r["layer"], r["group"]) == key]
                _dots(figure, here, group, (i, j))
    upright_titles(figure, -46, size=13, align="right")
    bare: dict[str, Any] = {
        "showticklabels": False,
        "ticks": "",
        "showgrid": False,
        "zeroline": False,
    }
    figure.update_xaxes(**bare, mirror=True, showline=True)
    figure.update_yaxes(**bare, mirror=True, showline=True)
    first = [r for r in rows if (r["setting"], r["layer"]) == (settings[0], layers[0])]
    return finish(
        figure,
        f"Token states in the plane: {METHOD_NAMES.get(method, label(method))}",
        f"The same {len(first):,} tokens of {len({r['id'] for r in first}):,} samples in every panel",
        height=170 + 240 * len(settings),
        legend={
            "y": 1 + 35 / (240 * len(settings)),
            "yanchor": "bottom",
            "itemsizing": "constant",
        },
        margin={"t": 150, "l": 130},
    )


def _dots(figure: go.Figure, rows: Sequence[Row], group: str, at: tuple[int, int]) -> None:
    """One group's tokens in one panel."""
    colour, symbol, _, _ = look_of(group)
    figure.add_scatter(
        x=[r["x"] for r in rows],
        y=[r["y"] for r in rows],
        mode="markers",
        name=f"{label(group)} tokens",
        legendgroup=group,
        showlegend=at == (1, 1),
        marker={"color": colour, "symbol": symbol, "size": 5, "opacity": 0.75},
        text=[f"{label(str(r['id']))}, position {r['position']}" for r in rows],
        hovertemplate=f"%{{text}}<extra>{label(group)}</extra>",
        row=at[0],
        col=at[1],
    )


def _listed(groups: str) -> str:
    *first, last = groups.split("+")
    return label(f"{', '.join(first)} and {last}" if first else last)
