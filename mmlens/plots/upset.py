"""How many neurons are in exactly which sets: an UpSet plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.frames import COMBINATION_COLUMNS, checked_rows, of_module
from mmlens.plots.style import GREY, INK, PALE, DomainStyle, domain_styles, finish, label


def upset(
    combinations: pd.DataFrame,
    module: str | None = None,
    *,
    domains: Sequence[str] | None = None,
    most: int = 20,
) -> go.Figure:
    """UpSet plot: how many neurons are in exactly which sets.

    A bar per combination, largest first; the dots below it, joined by a line, are its sets. At the
    left the size of every set. Columns: :data:`COMBINATION_COLUMNS`, as
    :func:`mmlens.selection.overlap.combinations_table` gives them. At most ``most`` combinations are drawn; the
    subtitle says what is left out. ValueError for a missing column, an absent module, several and
    none chosen, or a name outside ``domains``.
    """
    rows, module = of_module(
        checked_rows(combinations, COMBINATION_COLUMNS, "combinations"), module
    )
    members = [str(row["domains"]).split(";") for row in rows]
    order = list(domains) if domains is not None else sorted({d for one in members for d in one})
    if unknown := sorted({d for one in members for d in one} - set(order)):
        raise ValueError(f"The combinations have the name {unknown[0]!r}, which is not in {order}.")
    styles = domain_styles(order)
    counts = [int(row["n_neurons"]) for row in rows]
    sizes = {d: sum(c for c, one in zip(counts, members, strict=True) if d in one) for d in order}
    shown = sorted(range(len(rows)), key=lambda i: -counts[i])[:most]
    figure = make_subplots(
        rows=2,
        cols=2,
        specs=[[None, {}], [{}, {}]],
        column_widths=[0.24, 0.76],
        row_heights=[0.58, 0.42],
        horizontal_spacing=0.02,
        vertical_spacing=0.03,
    )
    _combination_bars(figure, [(counts[i], members[i]) for i in shown])
    _set_bars(figure, sizes, styles)
    _dots(figure, [[order.index(d) for d in members[i]] for i in shown], len(order))
    _axes(figure, order, len(shown), max(counts[i] for i in shown), max(*sizes.values(), 1))
    figure.update_layout(showlegend=False, bargap=0.35)
    total, left = sum(counts), sum(counts) - sum(counts[i] for i in shown)
    rest = f"; {len(rows) - len(shown)} smaller combinations with {left:,} neurons not shown"
    return finish(
        figure,
        f"Which sets the neurons belong to, {label(module)}",
        f"{total:,} neurons, each counted once, under exactly the sets with a dot{rest if left else ''}",
        height=max(520, 330 + 34 * len(order)),
        margin={"t": 90},
    )


def _combination_bars(figure: go.Figure, shown: Sequence[tuple[int, Sequence[str]]]) -> None:
    """Neurons of each combination of sets, upright."""
    figure.add_bar(
        x=list(range(len(shown))),
        y=[count for count, _ in shown],
        text=[f"{count:,}" for count, _ in shown],
        textposition="outside",
        textangle=0,
        cliponaxis=False,
        marker={"color": INK},
        name="intersections",
        customdata=[label(", ".join(names)) for _, names in shown],
        hovertemplate="%{y} neurons in exactly: %{customdata}<extra></extra>",
        row=1,
        col=2,
    )


def _set_bars(
    figure: go.Figure, sizes: Mapping[str, int], styles: Mapping[str, DomainStyle]
) -> None:
    """Neurons of each set, in rows beside its dots."""
    figure.add_bar(
        x=list(sizes.values()),
        y=list(range(len(sizes))),
        orientation="h",
        text=[f"{size:,}" for size in sizes.values()],
        textposition="outside",
        cliponaxis=False,
        marker={
            "color": [styles[d].colour for d in sizes],
            "line": {"color": INK, "width": 0.7},
        },
        name="sizes",
        customdata=[label(d) for d in sizes],
        hovertemplate="%{customdata}: %{x} neurons<extra></extra>",
        row=2,
        col=1,
    )


def _axes(figure: go.Figure, order: Sequence[str], shown: int, tallest: int, widest: int) -> None:
    """Names of the sets once, at the left; counts above and at the left."""
    places: dict[str, Any] = {
        "range": [len(order) - 0.5, -0.5],
        "tickvals": list(range(len(order))),
    }
    across: dict[str, Any] = {
        "range": [-0.6, shown - 0.4],
        "showgrid": False,
        "showticklabels": False,
    }
    figure.update_xaxes(ticks="", zeroline=False, col=2, **across)
    figure.update_yaxes(title_text="neurons", range=[0, 1.18 * tallest], row=1, col=2)
    figure.update_yaxes(ticktext=[label(d) for d in order], showgrid=False, row=2, col=1, **places)
    figure.update_yaxes(
        showticklabels=False, ticks="", showgrid=False, zeroline=False, row=2, col=2, **places
    )
    figure.update_xaxes(
        title_text="neurons in the set",
        range=[1.45 * widest, 0],
        nticks=4,
        row=2,
        col=1,
    )
    figure.update_xaxes(title_text="combination of sets", row=2, col=2)


def _dots(figure: go.Figure, members: Sequence[Sequence[int]], sets: int) -> None:
    """The dot matrix: pale everywhere, ink and joined where a set is part of the combination."""
    grid = np.array([(x, y) for x in range(len(members)) for y in range(sets)])
    figure.add_scatter(
        x=grid[:, 0].tolist(),
        y=grid[:, 1].tolist(),
        mode="markers",
        marker={"symbol": "circle-open", "size": 9, "color": PALE},
        name="not in",
        hoverinfo="skip",
        row=2,
        col=2,
    )
    xs: list[float | None] = []
    ys: list[float | None] = []
    for x, present in enumerate(members):
        xs += [x] * len(present) + [None]  # None ends the line of one combination
        ys += [*sorted(present), None]
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="lines+markers",
        marker={"symbol": "circle", "size": 11, "color": INK},
        line={"color": INK, "width": 2},
        name="in",
        hoverinfo="skip",
        row=2,
        col=2,
    )
    for y in range(0, sets, 2):  # the panel below at the right has the third axes
        figure.add_shape(
            x0=0,
            x1=1,
            y0=y - 0.5,
            y1=y + 0.5,
            xref="x3 domain",
            yref="y3",
            fillcolor=GREY,
            opacity=0.08,
            line_width=0,
            layer="below",
        )
