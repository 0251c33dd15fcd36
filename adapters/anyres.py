"""Any-resolution pictures of the LLaVA family: where tiles, packed features and newlines lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension

from mmlens.tokens.places import WHOLE, Box, Places, cells, tiles, window


def tile_boxes(size: tuple[int, int], pinpoints: list[list[int]], side: int) -> list[Box]:
    """What each tile shows of a picture: the whole picture, then the grid's tiles row by row.

    Args:
        size: (height, width) of the picture.
        pinpoints: the canvases (height, width) to choose from.
        side: of a tile, in pixels.

    Returns:
        Boxes in fractions of the picture; beyond 0 and 1 where a tile has a padded border.
    """
    tall, wide = select_best_resolution(size, pinpoints)
    picture = np.broadcast_to(np.zeros(1), (*size, 1))
    height, width = get_patch_output_size(picture, (tall, wide), ChannelDimension.LAST)
    padding = (-((tall - height) // 2), -((wide - width) // 2))
    canvas = window((height, width), padding, (tall, wide))
    return [WHOLE, *tiles(tall // side, wide // side, canvas)]


def packed_places(patches: Places, packed: Int[Tensor, " feature"]) -> Places:
    """The places of packed features.

    Args:
        patches: the patches of all of a picture's tiles, one tile after another, not clipped.
        packed: for each feature the patch it is; -1 for a newline, which ends the row before it.
    """
    newline = packed < 0
    # A newline lies at the edge of the patch before it.
    source = torch.where(newline, packed.roll(1), packed)
    found, ends = patches[source], patches[source[newline]].newlines()
    order = torch.empty(len(packed), dtype=torch.long)
    order[~newline] = (~newline).nonzero()[:, 0]
    order[newline] = len(packed) + torch.arange(len(ends))
    return Places.joined([found, ends])[order].clipped()


def scaled(places: Places, base: int, rows: int, columns: int) -> Places:
    """The places of a packed grid that was scaled down, each row still ended by a newline.

    Args:
        places: the places before scaling: ``base`` patches of the whole picture, then the grid.
        base: patches of the whole picture.
        rows, columns: of the scaled grid, without newlines.
    """
    grid = places[slice(base, None)]
    old_columns = int(grid.are("newline").int().argmax())
    old_rows = len(grid) // (old_columns + 1)
    patches = grid[~grid.are("newline")]
    box = _extent(patches.boxes)
    down = ((torch.arange(rows) + 0.5) * old_rows / rows).long()
    across = ((torch.arange(columns) + 0.5) * old_columns / columns).long()
    nearest = (down[:, None] * old_columns + across).flatten()
    kept = patches[nearest]
    new = replace(kept, boxes=cells(rows, columns, box))
    at = torch.arange(rows * columns).view(rows, columns)
    ended = torch.cat([at, torch.full((rows, 1), -1)], 1).flatten()
    return Places.joined([places[slice(0, base)], packed_places(new, ended)])


def _extent(boxes: Float[Tensor, "pos 4"]) -> Box:
    known = boxes[~boxes.isnan().any(-1)]
    left, top = known[:, :2].amin(0).tolist()
    right, bottom = known[:, 2:].amax(0).tolist()
    return left, top, right, bottom
