"""The lens drawn over the picture: patches shaded and labelled, a slider for the layer (MM-8)."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float, Int
from PIL import Image
from plotly.subplots import make_subplots
from torch import Tensor

from mmlens.geometry import KINDS, Places
from mmlens.reporting import finish, label
from mmlens.reporting.lens_figures import shown_word, top_words

if TYPE_CHECKING:
    from mmlens.lens import LensResult

#: Words are written into cells where no more than this many lie side by side.
MOST_LABELS = 12
#: Sizes of a panel, in pixels of the screen.
_PANEL, _TALLEST, _NARROWEST = 380, 480, 200
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


@dataclass(frozen=True, eq=False)
class View:
    """The tokens of one picture, or of one moment of a video, that one panel shows."""

    title: str
    frame: int
    grids: tuple[Grid, ...]


def lens_on_picture(
    result: LensResult,
    row: int,
    places: Places,
    pictures: Sequence[Image.Image],
    *,
    kind: str = "image",
    medium: int = 0,
    hide_special: bool = True,
    opacity: float = 0.6,
) -> go.Figure:
    """A picture, and what the lens reads at each of its tokens, layer by layer (MM-8).

    Panels: the picture; its tokens where they lie in it, first those that show the whole of it, then
    the tiles that the model cuts out of it. Shade: entropy; word: the most probable token; hover:
    the first ten. Newline tokens stand at the right of their row, queries and class tokens, which
    read the whole picture, below it.

    Args:
        result: of :func:`mmlens.logit_lens`.
        row: the sample.
        places: of that row, ``mmlens.places.places_of(model, batch, row)``.
        pictures: of the medium: one, or the frames of a video.
        kind: ``image`` or ``video``.
        medium: which medium of that kind.
        hide_special: label with the best token that is not special.
        opacity: of the shade over the picture.

    Raises:
        ValueError: no token of this medium was read.
    """
    read = ~result.entropy[0, row].isnan()
    shown = (places.medium == medium) & (places.kind == KINDS.index(kind))
    views = list(_views(places, shown & read, pictures[0].size))
    if not views:
        raise ValueError(f"No token of {kind} {medium} in row {row} was read by the lens.")
    titles = ["picture", *(view.title for view in views)]
    figure = make_subplots(cols=len(titles), subplot_titles=titles, horizontal_spacing=0.025)
    _show_pictures(figure, views, pictures)
    cells = [(column, grid) for column, view in enumerate(views, start=2) for grid in view.grids]
    top = float(np.nanmax(result.entropy[:, row].numpy()))

    def drawn(layer: int) -> list[go.Heatmap]:
        maps = [
            _heatmap(result, layer, row, grid, hide_special).update(
                zmin=0, zmax=top, opacity=opacity if grid.over else 1.0
            )
            for _, grid in cells
        ]
        maps[0].update(showscale=True)
        return maps

    for (column, _), trace in zip(cells, drawn(0), strict=True):
        figure.add_trace(trace, row=1, col=column)
    last = len(result.layers) - 1
    _add_slider(figure, [drawn(layer) for layer in range(last + 1)], result.layers)
    samples = result.batch.samples
    asked = "" if samples is None else f"“{label(samples[row].text)}” "
    finish(
        figure,
        "What the lens reads in the picture",
        f"{asked}Dark: sure (low entropy). Word: the most probable token"
        f"{' that is not special' if hide_special else ''}. Hover: the first {result.top_ids.shape[-1]}.",
    )
    width, height = pictures[0].size
    across, along = (width * _extent(views, "x", width)), (height * _extent(views, "y", height))
    scale = min(_PANEL / across, _TALLEST / along)
    figure.update_layout(
        width=120 + max(_NARROWEST, int(scale * across)) * len(titles),
        height=int(scale * along) + 230,
        margin={"l": 20, "r": 70, "t": 130, "b": 20},
    )
    return figure


def _views(places: Places, own: Bool[Tensor, " pos"], size: tuple[int, int]) -> Iterator[View]:
    own = own & ~places.are("padding") & ~places.are("none")
    moments = sorted({(a, b) for a, b in places.frames[own].tolist()})
    for first, end in moments:
        now = own & (places.frames[:, 0] == first) & (places.frames[:, 1] == end)
        for tiled in (False, True):
            inside = now & ((places.tile > 0) == tiled)
            grids = tuple(_grids(places, inside, size))
            if not grids:
                continue
            title = "tokens of its tiles" if tiled else "tokens of the whole picture"
            if len(moments) > 1:
                title = f"frame {first}" if end - first == 1 else f"frames {first} to {end - 1}"
            yield View(title, first, grids)


def _grids(places: Places, inside: Bool[Tensor, " pos"], size: tuple[int, int]) -> Iterator[Grid]:
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


def _heatmap(
    result: LensResult, layer: int, row: int, grid: Grid, hide_special: bool
) -> go.Heatmap:
    entropy = result.entropy[layer, row, list(grid.positions)].numpy()
    hover = np.array(
        [*(top_words(result, layer, row, p) for p in grid.positions), ""], dtype=object
    )
    text = np.full(grid.owner.shape, "", dtype=object)
    if len(grid.x) - 1 <= MOST_LABELS:
        for position, field in zip(grid.positions, grid.labelled, strict=True):
            text[field] = label(shown_word(result, layer, row, position, hide_special))
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


def _show_pictures(
    figure: go.Figure, views: Sequence[View], pictures: Sequence[Image.Image]
) -> None:
    """Every panel's picture, and axes in its pixels, the same for all panels."""
    width, height = pictures[0].size
    for column, frame in enumerate([0, *(view.frame for view in views)], start=1):
        axis = "" if column == 1 else str(column)
        figure.add_layout_image(
            source=_data_uri(pictures[min(frame, len(pictures) - 1)]),
            xref=f"x{axis}",
            yref=f"y{axis}",
            x=0,
            y=0,
            sizex=width,
            sizey=height,
            sizing="stretch",
            layer="below",
        )
        hidden = {"showticklabels": False, "showgrid": False, "zeroline": False, "ticks": ""}
        figure.update_xaxes(
            range=[0, width * _extent(views, "x", width)], showline=False, **hidden, col=column
        )
        figure.update_yaxes(
            range=[height * _extent(views, "y", height), 0],
            scaleanchor=f"x{axis}",
            constrain="domain",
            showline=False,
            **hidden,
            col=column,
        )
    # A panel without data is not drawn, and its picture neither.
    figure.add_scatter(
        x=[0],
        y=[0],
        mode="markers",
        marker={"opacity": 0},
        hoverinfo="skip",
        showlegend=False,
        row=1,
        col=1,
    )


def _extent(views: Sequence[View], axis: str, size: int) -> float:
    """How far the cells reach, in sizes of the picture."""
    return max(1.0, *(float(getattr(g, axis)[-1]) / size for v in views for g in v.grids))


def _add_slider(
    figure: go.Figure, drawn: Sequence[Sequence[go.Heatmap]], layers: Sequence[int]
) -> None:
    """A step per layer that puts its values into the cells; the first trace is the picture's panel."""
    traces = list(range(1, 1 + len(drawn[0])))
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


def _data_uri(picture: Image.Image) -> str:
    """A picture as PNG inside a URI; small ones enlarged without smoothing, so that pixels stay such."""
    factor = max(1, 256 // max(picture.size))
    shown = picture.convert("RGB").resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )
    shown.thumbnail((1024, 1024))
    buffer = io.BytesIO()
    shown.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
