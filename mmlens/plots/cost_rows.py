"""Rows of costs: drops of mask and control at the left, their difference at the right, a line per mask.

The figures of masks, treatments, splits and methods are made of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmlens.plots.effect_marks import bands, effect_axes, effect_legend, effect_traces
from mmlens.plots.frames import Row
from mmlens.plots.style import GREY, finish, label, named_ticks, styles_of, wrapped

#: Above: title, subtitle, and a legend that takes up to four lines in a narrow window.
MARGINS = {"t": 180, "b": 75}


def cost_figure(
    rows: Sequence[Row], names: Sequence[str], control: str, title: str, subtitle: str
) -> go.Figure:
    """What masks cost beside a control, a line per row.

    Left: drop in accuracy under the mask, and mean drop under the control with its standard deviation
    over its sets. Right: mask minus control with its 95% interval, filled where it excludes 0, or
    "no control". Percentage points.

    Args:
        rows: as :func:`mmlens.plots.effect_marks.effect_traces` takes them, those of one ``owner``
            together: its name stands above them, and ``inner`` names each line; where every owner
            has one and the same, the owner alone.
        names: whose neurons ``mask`` may be, in the order of their colours.
        control: what the control is called.
        title, subtitle: of the figure.
    """
    styles = styles_of(names)
    lines = slots(rows)
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.05)
    heights = [i for i, (_, _, row) in enumerate(lines) if row is not None]
    effect_traces(figure, rows, [styles[row["mask"]].colour for row in rows], True, heights)
    effect_legend(figure, f"{label(control)} control")
    for height, row in zip(heights, rows, strict=True):
        if math.isnan(row["difference"]):
            font = {"size": 12, "color": GREY}
            at: Row = {"x": 0.5, "y": height, "xref": "x2 domain", "yref": "y2"}
            figure.add_annotation(**at, text="no control", showarrow=False, font=font)
    effect_axes(figure, rows)
    figure.update_xaxes(title_text="accuracy lost<br>(points)", col=1)
    figure.update_xaxes(title_text="mask minus<br>control (points)", col=2)
    return finish_rows(figure, rows, title, subtitle)


def finish_rows(figure: go.Figure, rows: Sequence[Row], title: str, subtitle: str) -> go.Figure:
    """Names of the lines, shades behind every other owner's, title, room for both."""
    lines = slots(rows)
    figure.update_yaxes(
        **named_ticks([text for _, text, _ in lines]),
        range=[len(lines) - 0.5, -0.5],
        zeroline=False,
        showgrid=False,
    )
    bands(figure, [owner for owner, _, _ in lines])
    above, below = MARGINS["t"], MARGINS["b"]
    each = 40 if any("<br>" in text for _, text, _ in lines) else 27
    height = max(400, above + below + each * len(lines))
    # A fixed distance above the panels: as a share of a tall figure it would reach the title.
    legend = {"y": 1 + 8 / (height - above - below)}
    return finish(figure, title, subtitle, height, margin=MARGINS, legend=legend)


def slots(rows: Sequence[Row]) -> list[tuple[str, str, Row | None]]:
    """(owner, text, row) of every line from the top; a line that only names an owner has no row."""
    alone = len({row["inner"] for row in rows}) == 1
    lines: list[tuple[str, str, Row | None]] = []
    for row in rows:
        owner = str(row["owner"])
        if not alone and (not lines or lines[-1][0] != owner):
            lines.append((owner, f"<b>{wrapped(owner, 28, 1)}</b>", None))
        text = wrapped(owner if alone else row["inner"], 24)
        lines.append((owner, text, row))
    return lines
