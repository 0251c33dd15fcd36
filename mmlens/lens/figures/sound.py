"""The lens drawn under the spectrogram of a sound, its words in their time spans, a slider for the layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.subplots import make_subplots

from mmlens.data.media.spectrogram import Spectrogram
from mmlens.lens.figures.cells import Grid, add_cells, heatmap, how_to_read, picture_uri
from mmlens.lens.figures.picture import show_picture
from mmlens.lens.readings import Readings
from mmlens.plots.style import finish
from mmlens.tokens.places import KINDS, Places

#: Tokens side by side; further ones stand in lines below, as a text does.
TOKENS_A_LINE = 24
#: Where the words stand, and the spectrogram above them, on an axis from the lowest to the highest
#: frequency.
_WORDS, _LOWEST = (-0.42, -0.06), -0.46
#: Letters of a written word; the hover has all of it.
_LETTERS = 8
#: Pixels of the screen: a line, what is between two, the figure's width. Pixels a second of the
#: spectrogram's picture.
_LINE, _BETWEEN, _WIDTH, _PER_SECOND = 150, 48, 1220, 200


def lens_on_sound(
    result: Readings,
    row: int,
    places: Places,
    spectrogram: Spectrogram,
    *,
    medium: int = 0,
    hide_special: bool = True,
) -> go.Figure:
    """A sound's spectrogram, and under it what the lens reads at each of its tokens, layer by layer.

    Each token's cell stands under the stretch of the sound that it stands for
    (:func:`mmlens.tokens.places.spans`); tokens of the silence after a sound are left out. Shade:
    entropy; word: the most probable token, cut where it is long; hover: time and the first ten.

    Args:
        result, row, places, hide_special: as of
            :func:`mmlens.lens.figures.picture.lens_on_picture`.
        spectrogram: of the sound, whole.
        medium: which of the sample's sounds it is.

    Raises:
        ValueError: no token of this sound was read.
    """
    read = ~result.entropy[0, row].isnan()
    shown = (places.medium == medium) & (places.kind == KINDS.index("audio")) & read
    positions = (shown & places.are("span")).nonzero()[:, 0].tolist()
    if not positions:
        raise ValueError(f"No token of audio {medium} in row {row} was read by the lens.")
    number = -(-len(positions) // TOKENS_A_LINE)
    lines = [one.tolist() for one in np.array_split(positions, number)]
    tall = number * (_LINE + _BETWEEN)
    figure = make_subplots(rows=number, cols=1, vertical_spacing=_BETWEEN / tall)
    times = places.seconds.double().numpy()
    wide = max(times[one[-1], 1] - times[one[0], 0] for one in lines)
    cells = []
    for line, own in enumerate(lines, start=1):
        start = times[own[0], 0]
        _show_line(figure, spectrogram, (start, start + wide), line, number)
        cells.append((_words_grid(times, own), line, 1))
    said = {p: f"{times[p, 0]:.2f} to {times[p, 1]:.2f} s<br>" for p in positions}

    def drawn(layer: int, grid: Grid) -> go.Heatmap:
        return heatmap(
            result, layer, row, grid, hide_special, most=len(positions), said=said, longest=_LETTERS
        ).update(textfont={"size": 11})

    add_cells(figure, result, row, cells, drawn)
    how = how_to_read(result, row, hide_special)
    finish(figure, "What the lens reads in the sound", how)
    figure.update_layout(
        width=_WIDTH,
        height=tall + 230,
        margin={"l": 20, "r": 70, "t": 110, "b": 20},
        sliders=[{"pad": {"t": 60}}],
    )
    return figure


def _words_grid(times: np.ndarray, positions: Sequence[int]) -> Grid:
    """Cells below the spectrogram, as wide as the tokens' times."""
    bottom, top = _WORDS
    boxes = np.array([(times[p, 0], bottom, times[p, 1], top) for p in positions])
    return Grid.of(positions, boxes, over=False)


def _show_line(
    figure: go.Figure,
    spectrogram: Spectrogram,
    span: tuple[float, float],
    line: int,
    lines: int,
) -> None:
    """The stretch of the spectrogram that one line shows, and its axes."""
    start, end = span[0], min(span[1], spectrogram.seconds)
    show_picture(
        figure, picture_uri(stretch(spectrogram, start, end)), (start, 1, end - start, 1), line, 1
    )
    marks, plain = spectrogram.ticks(), {"showgrid": False, "zeroline": False}
    figure.update_yaxes(
        range=[_LOWEST, 1],
        tickvals=[place for place, _ in marks],
        ticktext=[name for _, name in marks],
        row=line,
        col=1,
        **plain,
    )
    title = "time (s)" if line == lines else None
    figure.update_xaxes(range=list(span), title=title, row=line, col=1, **plain)


def stretch(spectrogram: Spectrogram, start: float, end: float) -> Image.Image:
    """The picture of a part of a sound, from ``start`` to ``end`` seconds."""
    height = len(spectrogram.frequencies)
    whole = spectrogram.image(max(1, round(spectrogram.seconds * _PER_SECOND)), height)
    left, right = (one / spectrogram.seconds * whole.width for one in (start, end))
    size = (max(1, round(right - left)), height)
    return whole.resize(size, Image.Resampling.BOX, box=(left, 0, right, height))
