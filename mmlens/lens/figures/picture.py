"""The lens drawn over the picture: patches shaded and labelled, a slider for the layer (MM-8)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from jaxtyping import Bool
from PIL import Image
from plotly.subplots import make_subplots
from torch import Tensor

from mmlens.lens.figures.cells import Grid, add_cells, grids_of, heatmap, how_to_read, picture_uri
from mmlens.lens.readings import Readings
from mmlens.plots.style import finish
from mmlens.tokens.places import KINDS, Places

#: Sizes of a panel, in pixels of the screen.
_PANEL, _TALLEST, _NARROWEST = 380, 480, 200


@dataclass(frozen=True, eq=False)
class View:
    """The tokens of one picture, or of one moment of a video, that one panel shows.

    Attributes:
        frames: the first frame of a video's moment, and the one after the last; (0, 1) in a picture.
        tiled: whether they are of tiles cut out of the picture.
        grids: the tokens.
    """

    frames: tuple[int, int]
    tiled: bool
    grids: tuple[Grid, ...]


def lens_on_picture(
    result: Readings,
    row: int,
    places: Places,
    picture: Image.Image,
    *,
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
        places: of that row, ``mmlens.model.places.places_of(model, batch, row)``.
        picture: the picture, as it was given.
        medium: which of the sample's pictures it is.
        hide_special: label with the best token that is not special.
        opacity: of the shade over the picture.

    Raises:
        ValueError: no token of this picture was read.
    """
    views = views_of(result, row, places, "image", medium, picture.size)
    panels = ["tokens of its tiles" if v.tiled else "tokens of the whole picture" for v in views]
    titles = ["picture", *panels]
    figure = make_subplots(cols=len(titles), subplot_titles=titles, horizontal_spacing=0.025)
    width, height = picture.size
    across, along = extent(views, picture.size)
    for column in range(1, len(titles) + 1):
        show_picture(figure, picture_uri(picture), (0.0, 0.0, width, height), 1, column)
        bare_axes(figure, width * across, height * along, 1, column)
    cells = [(grid, 1, column) for column, view in enumerate(views, start=2) for grid in view.grids]

    def drawn(layer: int, grid: Grid) -> go.Heatmap:
        found = heatmap(result, layer, row, grid, hide_special)
        return found.update(opacity=opacity if grid.over else 1.0)

    add_cells(figure, result, row, cells, drawn)
    finish(figure, "What the lens reads in the picture", how_to_read(result, row, hide_special))
    scale = min(_PANEL / (width * across), _TALLEST / (height * along))
    figure.update_layout(
        width=120 + max(_NARROWEST, int(scale * width * across)) * len(titles),
        height=int(scale * height * along) + 230,
        margin={"l": 20, "r": 70, "t": 130, "b": 20},
    )
    return figure


def views_of(
    result: Readings,
    row: int,
    places: Places,
    kind: str,
    medium: int,
    size: tuple[int, int],
) -> list[View]:
    """The panels of one medium: moments in their order, in each the whole picture before its tiles.

    Args:
        result, row, places: as in :func:`lens_on_picture`.
        kind: ``image`` or ``video``.
        medium: which of that kind.
        size: (width, height) of the picture, or of the frames.

    Raises:
        ValueError: no token of this medium was read.
    """
    read = ~result.entropy[0, row].isnan()
    shown = (places.medium == medium) & (places.kind == KINDS.index(kind)) & read
    views = list(_views(places, shown, size))
    if not views:
        raise ValueError(f"No token of {kind} {medium} in row {row} was read by the lens.")
    return views


def _views(places: Places, own: Bool[Tensor, " pos"], size: tuple[int, int]) -> Iterator[View]:
    own = own & ~places.are("padding") & ~places.are("none")
    for first, end in sorted({(a, b) for a, b in places.frames[own].tolist()}):
        now = own & (places.frames[:, 0] == first) & (places.frames[:, 1] == end)
        for tiled in (False, True):
            if grids := tuple(grids_of(places, now & ((places.tile > 0) == tiled), size)):
                yield View((first, end), tiled, grids)


def extent(views: Sequence[View], size: tuple[int, int]) -> tuple[float, float]:
    """How far the cells of several panels reach to the right and down, in sizes of the picture."""
    grids = [grid for view in views for grid in view.grids]
    across = max(1.0, *(float(grid.x[-1]) / size[0] for grid in grids))
    return across, max(1.0, *(float(grid.y[-1]) / size[1] for grid in grids))


def show_picture(
    figure: go.Figure,
    source: str,
    where: tuple[int | float, ...],
    row: int,
    column: int,
) -> None:
    """Put a picture into a panel: (left, top, width, height) on its axes, of which y goes down."""
    left, top, width, height = where
    figure.add_layout_image(
        source=source,
        x=left,
        y=top,
        sizex=width,
        sizey=height,
        sizing="stretch",
        layer="below",
        row=row,
        col=column,
    )
    # A panel without data is not drawn, and its picture neither.
    figure.add_scatter(
        x=[left],
        y=[top],
        mode="markers",
        marker={"opacity": 0},
        hoverinfo="skip",
        showlegend=False,
        row=row,
        col=column,
    )


def bare_axes(
    figure: go.Figure, width: int | float, height: int | float, row: int, column: int
) -> None:
    """Axes in pixels, y downwards, of one scale, without marks."""
    hidden = {"showticklabels": False, "showgrid": False, "zeroline": False, "ticks": ""}
    figure.update_xaxes(range=[0, width], showline=False, **hidden, row=row, col=column)
    axis = next(figure.select_xaxes(row=row, col=column)).plotly_name.removeprefix("xaxis")
    figure.update_yaxes(
        range=[height, 0],
        scaleanchor=f"x{axis}",
        constrain="domain",
        showline=False,
        **hidden,
        row=row,
        col=column,
    )
