"""The lens drawn over the frames of a video, moment by moment, with a slider for the layer (MM-8)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.subplots import make_subplots

from mmlens.lens.figures.cells import Grid, add_cells, heatmap, how_to_read, picture_uri
from mmlens.lens.figures.picture import View, bare_axes, extent, show_picture, views_of
from mmlens.lens.readings import Readings
from mmlens.plots.style import finish
from mmlens.tokens.places import Places

#: Moments side by side; further ones stand in lines below.
MOMENTS_A_LINE = 5
#: Width and greatest height of a panel, in pixels of the screen; longest side of a frame's picture.
_PANEL, _TALLEST, _LONGEST = 250, 300, 384
_BETWEEN, _NARROWEST = 34, 860


def lens_on_video(
    result: Readings,
    row: int,
    places: Places,
    frames: Sequence[Image.Image],
    *,
    fps: float | None = None,
    medium: int = 0,
    hide_special: bool = True,
    opacity: float = 0.6,
) -> go.Figure:
    """The frames of a video, and what the lens reads at each of its tokens, layer by layer (MM-8).

    Above: the frames of each moment that tokens stand for, side by side (Qwen2-VL and its like make
    one patch of two frames). Below: the mean of these frames, with the moment's tokens where they lie
    in it. Shade, words and hover are those of :func:`mmlens.lens.figures.picture.lens_on_picture`.

    Args:
        result, row, places, hide_special, opacity: as there.
        frames: all of the video's.
        fps: frames per second, for the titles; None: not known.
        medium: which of the sample's videos it is.

    Raises:
        ValueError: no token of this video was read.
    """
    size = width, height = frames[0].size
    views = views_of(result, row, places, "video", medium, size)
    columns = min(len(views), MOMENTS_A_LINE)
    lines = -(-len(views) // columns)
    most = max(end - first for first, end in (view.frames for view in views))
    across, along = extent(views, size)
    scale = min(_PANEL / (width * across), _TALLEST / (height * along))
    above, below = int(scale * height / most), int(scale * height * along)
    tall = lines * (above + below + 2 * _BETWEEN)
    figure = make_subplots(
        rows=2 * lines,
        cols=columns,
        row_heights=[above, below] * lines,
        horizontal_spacing=0.08 / columns,
        vertical_spacing=_BETWEEN / tall,
        subplot_titles=_titles(views, columns, lines, fps),
    )
    cells = []
    for number, view in enumerate(views):
        line, column = 2 * (number // columns) + 1, number % columns + 1
        _show_moment(figure, view, frames, most, (line, column))
        bare_axes(figure, width * across, height / most, line, column)
        bare_axes(figure, width * across, height * along, line + 1, column)
        cells += [(grid, line + 1, column) for grid in view.grids]

    for number in range(len(views), columns * lines):  # the last line's empty panels
        line, column = 2 * (number // columns) + 1, number % columns + 1
        for one in (line, line + 1):
            figure.update_xaxes(visible=False, row=one, col=column)
            figure.update_yaxes(visible=False, row=one, col=column)

    def drawn(layer: int, grid: Grid) -> go.Heatmap:
        found = heatmap(result, layer, row, grid, hide_special)
        return found.update(opacity=opacity if grid.over else 1.0)

    add_cells(figure, result, row, cells, drawn)
    finish(figure, "What the lens reads in the video", how_to_read(result, row, hide_special))
    figure.update_layout(
        width=max(_NARROWEST, 120 + int(scale * width * across + 20) * columns),
        height=tall + 230,
        margin={"l": 20, "r": 70, "t": 130, "b": 20},
    )
    return figure


def _titles(views: Sequence[View], columns: int, lines: int, fps: float | None) -> list[str]:
    """A title for each panel, row by row; the panels with tokens have none."""
    named = [_moment(*view.frames, fps) for view in views]
    named += [""] * (columns * lines - len(named))
    titles = []
    for line in range(lines):
        titles += named[line * columns : (line + 1) * columns] + [""] * columns
    return titles


def _moment(first: int, end: int, fps: float | None) -> str:
    said = f"frame {end}" if end - first == 1 else f"frames {first + 1} to {end}"
    return said if fps is None else f"{said} ({first / fps:.3g} to {end / fps:.3g} s)"


def _show_moment(
    figure: go.Figure,
    view: View,
    frames: Sequence[Image.Image],
    most: int,
    panel: tuple[int, int],
) -> None:
    """The frames of a moment side by side, and below the mean of them."""
    width, height = frames[0].size
    shown = [frames[min(one, len(frames) - 1)] for one in range(*view.frames)]
    line, column = panel
    wide, tall = width / most, height / most
    for number, frame in enumerate(shown):
        where = (number * wide, 0, 0.98 * wide, tall)
        show_picture(figure, picture_uri(frame, _LONGEST), where, line, column)
    mean = np.mean([np.asarray(one.convert("RGB"), float) for one in shown], axis=0)
    source = picture_uri(Image.fromarray(np.round(mean).astype(np.uint8)), _LONGEST)
    show_picture(figure, source, (0, 0, width, height), line + 1, column)
