"""LLaVA-NeXT (LLaVA-1.6): CLIP tower, any-resolution tiles, two-layer projector, Llama or Mistral.

The picture is cut into a base tile and a grid of tiles. Each tile passes the CLIP tower and the
projector alone; the features of the grid are put back in place, freed of padding, and every row of
patches is ended by the learned ``image_newline`` (arXiv 2310.03744 and the LLaVA-NeXT notes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from mmlens.adapter import MediaSizes, numbered
from mmlens.hook_names import LANGUAGE
from mmlens.tokens.places import Box, Places, class_and_patches
from mmlens_adapters.anyres import packed_places, tile_boxes
from mmlens_adapters.llava import LlavaAdapter
from mmlens_adapters.squares import square_rows


class LlavaNextAdapter(LlavaAdapter):
    """``LlavaNextForConditionalGeneration`` with any decoder."""

    model_types = ("llava_next",)

    def feature_counts(self, inputs: Mapping[str, Any]) -> dict[str, Int[Tensor, " medium"]]:
        """Features per picture, by the model's own packing of tiles (newlines included)."""
        packed = self._packed(inputs)
        return {"image": torch.tensor([len(one) for one in packed], dtype=torch.long)}

    def tower_rows(
        self, module: str, inputs: Mapping[str, Any], media_rows: Mapping[str, Sequence[int]]
    ) -> list[Int[Tensor, ...]]:
        """Each tile belongs to the row of its picture; padding tiles never reach the tower."""
        pixels = inputs["pixel_values"]
        positions = self.positions(pixels, module)
        return [square_rows(media_rows["image"], positions, pixels, self._tiles(inputs))]

    def grid(self, module: str) -> tuple[int, int, int]:
        """See :meth:`LlavaAdapter.grid`; packing leaves the class tokens out."""
        return *self.patch_grid(), 0 if module == LANGUAGE else max(self._classes(module), 0)

    def places(
        self, module: str, processor: Any, inputs: Mapping[str, Any], sizes: Sequence[MediaSizes]
    ) -> list[Places] | None:
        """Patches in their tiles; newlines at the ends of rows; each tile's class token on all of it.

        The grid's tiles are those of the picture, resized and padded to the canvas that fits best, so
        that patches at its edges may be partly or wholly padding.
        """
        found = self._picture_places(module, inputs, sizes)
        return [Places.joined(found)] if found or module == LANGUAGE else []

    def _picture_places(
        self, module: str, inputs: Mapping[str, Any], sizes: Sequence[MediaSizes]
    ) -> list[Places]:
        """The places of each picture."""
        rows, columns, classes = self.grid(module)
        boxes = [self._boxes(size, row) for row in sizes for size in row.images]
        numbers = [number for number, _ in numbered(sizes, "image")]
        found = []
        for number, cut, packed in zip(numbers, boxes, self._packed(inputs), strict=True):
            tiles = [
                class_and_patches(classes, rows, columns, box, medium=number, tile=tile)
                for tile, box in enumerate(cut)
            ]
            whole = Places.joined(tiles)
            found.append(packed_places(whole, packed) if module == LANGUAGE else whole.clipped())
        return found

    def _boxes(self, size: tuple[int, int], row: MediaSizes) -> list[Box]:
        """What each tile of a picture of a row shows."""
        config: Any = self.hf.config
        return tile_boxes(size, config.image_grid_pinpoints, config.vision_config.image_size)

    def media_tokens(self, processor: Any, sizes: MediaSizes) -> int:
        """See :meth:`Adapter.media_tokens`."""
        if not sizes.images:
            return 0
        found = processor._get_num_multimodal_tokens([list(s) for s in sizes.images])
        return sum(found.num_image_tokens)

    def _packed(self, inputs: Mapping[str, Any]) -> list[Int[Tensor, " feature"]]:
        """For each feature of a picture, the patch it is of all its tiles' patches; -1: a newline."""
        strategy = self.hf.config.vision_feature_select_strategy
        return self._pack(inputs, vision_feature_select_strategy=strategy)

    def _pack(self, inputs: Mapping[str, Any], **arguments: Any) -> list[Int[Tensor, " feature"]]:
        """The model's own packing of numbered patches, with these arguments.

        Packing moves, drops and scales positions, never channels; so numbers can be packed instead.
        """
        sizes = inputs.get("image_sizes")
        if sizes is None:
            return []
        rows, columns = self.patch_grid()
        tiles = [
            rearrange(
                torch.arange(number * rows * columns, dtype=torch.float64),
                "(tile patch) -> tile patch 1",
                tile=number,
            )
            for number in self._tiles(inputs)
        ]
        newline = -torch.ones(1, dtype=torch.float64)
        packed, _ = self.hf.model.pack_image_features(
            tiles, sizes, image_newline=newline, **arguments
        )
        return [one[:, 0].round().long() for one in packed]

    def _tiles(self, inputs: Mapping[str, Any]) -> list[int]:
        """Tiles of each picture."""
        config: Any = self.hf.config
        pinpoints, side = config.image_grid_pinpoints, config.vision_config.image_size
        return [image_size_to_num_patches(one, pinpoints, side) for one in inputs["image_sizes"]]
