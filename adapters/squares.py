"""Families that see a picture as one square of fixed size, or as several: what they count and place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from mmlens.adapter import MediaSizes
from mmlens.hook_names import LANGUAGE
from mmlens.tokens.places import WHOLE, Box, Places, class_and_patches
from mmlens_adapters.base import FamilyAdapter

Pixels = Float[Tensor, "*square channel height width"]


class SquareAdapter(FamilyAdapter):
    """A family whose tower sees squares without padding, all alike; a medium is one square."""

    modalities = ("image",)

    def positions(self, pixels: Pixels, module: str) -> int:
        """Positions of one square in a tower's activations; its features, for ``language``."""
        return self.patches(pixels)

    def grid(self, module: str) -> tuple[int, int, int]:
        """Rows and columns of positions of one square in a module, and class tokens before them."""
        return *self.patch_grid(), 0

    def tiles(self, processor: Any, size: tuple[int, int]) -> Sequence[tuple[int, Box]]:
        """The squares that a picture (height, width) becomes: :attr:`Places.tile`, and what it shows."""
        return [(0, WHOLE)]

    def patches(self, pixels: Pixels) -> int:
        """Patches that the vision tower cuts one square into."""
        tall, wide = _pair(self.hf.config.vision_config.patch_size)
        return (pixels.shape[-2] // tall) * (pixels.shape[-1] // wide)

    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of the patches of a square, by the config."""
        vision = self.hf.config.vision_config
        (height, width), (tall, wide) = _pair(vision.image_size), _pair(vision.patch_size)
        return height // tall, width // wide

    def squares(self, pixels: Pixels) -> int:
        """How many squares the tower sees."""
        return len(pixels)

    def feature_counts(self, inputs: Mapping[str, Any]) -> dict[str, Int[Tensor, " medium"]]:
        """Features per square, all alike; what is encoded counts for itself."""
        if (encoded := inputs.get("mm_encoder_outputs")) is not None:
            counts = [len(one) for one in encoded["image"].pooler_output if len(one)]
            return {"image": torch.tensor(counts, dtype=torch.long)}
        pixels = inputs.get("pixel_values")
        if pixels is None:
            return {"image": torch.zeros(0, dtype=torch.long)}
        return {"image": torch.full((self.squares(pixels),), self.positions(pixels, LANGUAGE))}

    def tower_rows(
        self, module: str, inputs: Mapping[str, Any], media_rows: Mapping[str, Sequence[int]]
    ) -> list[Int[Tensor, ...]]:
        """Every position of a square is real."""
        pixels = inputs["pixel_values"]
        return [square_rows(media_rows["image"], self.positions(pixels, module), pixels)]

    def places(
        self, module: str, processor: Any, inputs: Mapping[str, Any], sizes: Sequence[MediaSizes]
    ) -> list[Places] | None:
        """Row by row the squares of its pictures, then the frames of its videos, a square each."""
        rows, columns, classes = self.grid(module)
        found = []
        for media in sizes:
            found += [
                class_and_patches(classes, rows, columns, box, medium=number, tile=tile)
                for number, size in enumerate(media.images)
                for tile, box in self.tiles(processor, size)
            ]
            for number, (frames, _, _) in enumerate(media.videos):
                found += frame_places(range(frames), self.grid(module), number)
        return [Places.joined(found).clipped()] if found or module == LANGUAGE else []


def frame_places(frames: Iterable[int], grid: tuple[int, int, int], medium: int) -> list[Places]:
    """The places of these frames of a video, each a square of rows, columns and class tokens."""
    rows, columns, classes = grid
    return [
        class_and_patches(classes, rows, columns, kind="video", medium=medium, frames=(i, i + 1))
        for i in frames
    ]


def square_rows(
    rows: Sequence[int], positions: int, like: Tensor, squares: Sequence[int] | None = None
) -> Int[Tensor, "square position"]:
    """The row of the batch that each position of each square belongs to.

    Args:
        rows: the row of each medium.
        positions: of one square.
        like: gives the device.
        squares: squares of each medium; one each where it is None.
    """
    of_squares = torch.tensor(rows, dtype=torch.long)
    if squares is not None:
        of_squares = of_squares.repeat_interleave(torch.tensor(squares))
    return repeat(of_squares.to(like.device), "square -> square position", position=positions)


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width
