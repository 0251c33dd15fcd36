"""What the lens's pictures share: cells of tokens over a medium, their words, the slider for the layer."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from mmlens.lens.figures.table import shown_word, top_words
from mmlens.lens.readings import Readings
from mmlens.plots.style import label
from mmlens.tokens.places import Places

#: Words are written into cells where no more than this many lie side by side.
MOST_LABELS = 12
#: Where cells stand that have no place of their own in the picture, in shares of its size.
_BESIDE, _BELOW, _STRIP = 1.03, 1.05, 0.1
_PER_ROW = 8


@dataclass(frozen=True, eq=False)
class Grid:
    """Cells that make a grid, over the picture or beside it.

    Attributes:
        positions: of the prompt, one per cell.
        x, y: edges of the grid's columns and rows, in pixels of the picture.
        owner: which of the positions each field of the grid belongs to; -1: none.
        labelled: the field of each position that its word is written into.
        over: whether the picture lies below.
    """

    positions: tuple[int, ...]
    x: Float[np.ndarray, " column_edge"]
    y: Float[np.ndarray, " row_edge"]
    owner: Int[np.ndarray, "row column"]
    labelled: tuple[tuple[int, int], ...]
    over: bool

    @classmethod
    def of(cls, positions: Sequence[int], boxes: Float[np.ndarray, "cell 4"], over: bool) -> Grid:
        """The coarsest grid in which every box is made of whole fields."""
        boxes = boxes.round(3)
        x, y = np.unique(boxes[:, [0, 2]]), np.unique(boxes[:, [1, 3]])
        owner = np.full((len(y) - 1, len(x) - 1), -1)
        labelled = []
        for cell, (left, top, right, bottom) in enumerate(boxes):
            columns = slice(*np.searchsorted(x, [left, right]).tolist())
            rows = slice(*np.searchsorted(y, [top, bottom]).tolist())
            owner[rows, columns] = cell
            labelled.append(
                ((rows.start + rows.stop - 1) // 2, (columns.start + columns.stop - 1) // 2)
            )
        return cls(tuple(positions), x, y, owner, tuple(labelled), over)


def grids_of(places: Places, inside: Bool[Tensor, " pos"], size: tuple[int, int]) -> Iterator[Grid]:
    """Patches over the picture, newlines beside it, queries and class tokens below it."""
    width, height = size
    lanes = {
        "patch": places.are("patch"),
        "newline": places.are("newline"),
        "whole": places.are("query") | places.are("class"),
    }
    for lane, role in lanes.items():
        chosen = (inside & role).nonzero()[:, 0]
        if not len(chosen):
            continue
        boxes = places.boxes[chosen].double().numpy() * [width, height, width, height]
        if lane == "newline":
            boxes[:, 0], boxes[:, 2] = width * _BESIDE, width * (_BESIDE + _STRIP)
        elif lane == "whole":
            number = np.arange(len(chosen))
            step = width / min(len(chosen), _PER_ROW)
            left, top = number % _PER_ROW * step, height * (_BELOW + number // _PER_ROW * _STRIP)
            boxes = np.stack([left, top, left + step, top + height * _STRIP], axis=1)
        yield Grid.of(chosen.tolist(), boxes, over=lane == "patch")


def heatmap(
    result: Readings,
    layer: int,
    row: int,
    grid: Grid,
    hide_special: bool,
    *,
    most: int = MOST_LABELS,
    said: Mapping[int, str] | None = None,
    longest: int | None = None,
) -> go.Heatmap:
    """One layer's entropies in the cells of a grid, with words.

    Args:
        result, row, hide_special: as in :func:`mmlens.lens.figures.picture.lens_on_picture`.
        layer: among the result's layers.
        grid: the cells.
        most: columns beyond which no words are written.
        said: position -> how its hover text begins.
        longest: letters of a written word; a longer one is cut off.
    """
    entropy = result.entropy[layer, row, list(grid.positions)].numpy()
    hover = np.array(
        [
            *((said or {}).get(p, "") + top_words(result, layer, row, p) for p in grid.positions),
            "",
        ],
        dtype=object,
    )
    text = np.full(grid.owner.shape, "", dtype=object)
    if len(grid.x) - 1 <= most:
        for position, field in zip(grid.positions, grid.labelled, strict=True):
            word = shown_word(result, layer, row, position, hide_special)
            text[field] = label(_shortened(word, longest))
    return go.Heatmap(
        z=np.append(entropy, np.nan)[grid.owner],
        x=grid.x,
        y=grid.y,
        text=text,
        customdata=hover[grid.owner],
        texttemplate="%{text}",
        textfont={"size": 12, "color": "#ffffff", "shadow": "0 0 3px #000, 0 0 3px #000"},
        colorscale="Cividis",
        showscale=False,
        colorbar={"title": {"text": "nats"}, "thickness": 14},
        xgap=1,
        ygap=1,
        hovertemplate="entropy %{z:.2f} nats<br>%{customdata}<extra></extra>",
        hoverongaps=False,
    )


def _shortened(word: str, longest: int | None) -> str:
    if longest is None or len(word) <= longest:
        return word
    return word[: longest - 1] + "\u2026"


def how_to_read(result: Readings, row: int, hide_special: bool) -> str:
    """The subtitle that all of the lens's pictures have: the question, shade, words, hover."""
    samples = result.batch.samples
    asked = "" if samples is None else f"\u201c{label(samples[row].text)}\u201d "
    return (
        f"{asked}Dark: sure (low entropy). Word: the most probable token"
        f"{' that is not special' if hide_special else ''}. Hover: the first "
        f"{result.top_ids.shape[-1]}."
    )


def add_cells(
    figure: go.Figure,
    result: Readings,
    row: int,
    cells: Sequence[tuple[Grid, int, int]],
    drawn: Callable[[int, Grid], go.Heatmap],
) -> None:
    """Put grids into a figure, (grid, its row, its column), and a slider that changes their layer.

    Args:
        figure: made by ``make_subplots``, whatever shall lie below the cells already in it.
        result, row: the lens, and the sample.
        cells: the grids and where they belong.
        drawn: (layer among the result's, grid) -> its values.
    """
    top = float(np.nanmax(result.entropy[:, row].numpy()))

    def layer_maps(layer: int) -> list[go.Heatmap]:
        maps = [drawn(layer, grid).update(zmin=0, zmax=top) for grid, _, _ in cells]
        maps[0].update(showscale=True)
        return maps

    first = len(list(figure.data))
    for (_, line, column), trace in zip(cells, layer_maps(0), strict=True):
        figure.add_trace(trace, row=line, col=column)
    maps = [layer_maps(layer) for layer in range(len(result.layers))]
    _add_slider(figure, maps, result.layers, first)


def _add_slider(
    figure: go.Figure, drawn: Sequence[Sequence[go.Heatmap]], layers: Sequence[int], first: int
) -> None:
    """A step per layer that puts its values into the cells, which are the traces from ``first`` on."""
    traces = list(range(first, first + len(drawn[0])))
    steps = [
        {
            "label": str(layer),
            "method": "restyle",
            "args": [
                {name: [m[name] for m in maps] for name in ("z", "text", "customdata")},
                traces,
            ],
        }
        for layer, maps in zip(layers, drawn, strict=True)
    ]
    slider = {
        "steps": steps,
        "currentvalue": {"prefix": "decoder layer "},
        "pad": {"t": 25},
        "len": 0.9,
        "x": 0.02,
    }
    figure.update_layout(sliders=[slider])


def picture_uri(picture: Image.Image, longest: int = 1024) -> str:
    """A picture as PNG inside a URI; small ones enlarged without smoothing, so that pixels stay such.

    Large ones are made smaller, to ``longest`` pixels.
    """
    factor = max(1, 256 // max(picture.size))
    shown = picture.convert("RGB").resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )
    shown.thumbnail((longest, longest))
    buffer = io.BytesIO()
    shown.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
