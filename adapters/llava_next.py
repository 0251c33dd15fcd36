"""LLaVA-NeXT (LLaVA-1.6): CLIP tower, any-resolution tiles, two-layer projector, Llama or Mistral.

The picture is cut into a base tile and a grid of tiles. Each tile passes the CLIP tower and the
projector alone; the features of the grid are put back in place, freed of padding, and every row of
patches is ended by the learned ``image_newline`` (arXiv 2310.03744 and the LLaVA-NeXT notes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from mmlens.adapter import MediaSizes, Towers
from mmlens.hook_names import LANGUAGE
from mmlens.tokens.places import Places, class_and_patches
from mmlens_adapters.anyres import packed_places, tile_boxes
from mmlens_adapters.base import FamilyAdapter, plain_tower


class LlavaNextAdapter(FamilyAdapter):
    """``LlavaNextForConditionalGeneration`` with any decoder."""

    model_types = ("llava_next",)
    modalities = ("image",)

    def towers(self) -> Towers:
        """CLIP's MLPs and the projector's one.

        LLaVA reads a hidden state before CLIP's end (``vision_feature_layer`` -2), so the layers
        after it cannot influence the output: they are marked as off the path.
        """
        encoder = self.hf.model.vision_tower.encoder.layers
        # hidden_states[0] is the embedding, so hidden_states[i] is the output of layer i - 1.
        read = self.hf.config.vision_feature_layer
        read = [read] if isinstance(read, int) else list(read)
        last = max(i if i >= 0 else len(encoder) + 1 + i for i in read)
        return Towers(
            {
                "vision": plain_tower(encoder, on_path=lambda layer: layer < last),
                "projector": plain_tower(
                    [self.hf.model.multi_modal_projector], "linear_1", "linear_2"
                ),
            }
        )

    def feature_counts(self, inputs: Mapping[str, Any]) -> dict[str, Int[Tensor, " medium"]]:
        """Features per picture, by the model's own packing of tiles (newlines included)."""
        packed = self._packed(inputs)
        return {"image": torch.tensor([len(one) for one in packed], dtype=torch.long)}

    def tower_rows(
        self, module: str, inputs: Mapping[str, Any], media_rows: Mapping[str, Sequence[int]]
    ) -> list[Int[Tensor, ...]]:
        """Each tile belongs to the row of its picture; padding tiles never reach the tower.

        CLIP sees the patches of a tile and its class token; the projector what is selected.
        """
        vision: Any = self.hf.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        selected = self.hf.config.vision_feature_select_strategy == "default"
        positions = patches if module == "projector" and selected else patches + 1
        tiles = torch.tensor(self._tiles(inputs["image_sizes"]))
        rows = torch.tensor(media_rows["image"]).repeat_interleave(tiles)
        return [rows[:, None].expand(-1, positions)]

    def places(
        self,
        module: str,
        processor: Any,  # noqa: ARG002
        inputs: Mapping[str, Any],
        sizes: Sequence[MediaSizes],
    ) -> list[Places] | None:
        """Patches in their tiles; newlines at the ends of rows; each tile's class token on all of it.

        The grid's tiles are those of the picture, resized and padded to the canvas that fits best, so
        that patches at its edges may be partly or wholly padding.
        """
        config: Any = self.hf.config
        vision = config.vision_config
        side = vision.image_size // vision.patch_size
        classes = int(module == "vision" or config.vision_feature_select_strategy != "default")
        numbers = [number for row in sizes for number in range(len(row.images))]
        if not numbers:
            return [Places.nowhere(0)] if module == LANGUAGE else []
        towers, features = [], []
        given = zip(numbers, inputs["image_sizes"].tolist(), self._packed(inputs), strict=True)
        for number, (height, width), packed in given:
            boxes = tile_boxes((height, width), config.image_grid_pinpoints, vision.image_size)
            found = [
                class_and_patches(
                    0 if module == LANGUAGE else classes, side, side, box, medium=number, tile=tile
                )
                for tile, box in enumerate(boxes)
            ]
            whole = Places.joined(found)
            towers.append(whole.clipped())
            if module == LANGUAGE:
                features.append(packed_places(whole, packed))
        return [Places.joined(features if module == LANGUAGE else towers)]

    def media_tokens(self, processor: Any, sizes: MediaSizes) -> int:
        """See :meth:`Adapter.media_tokens`."""
        if not sizes.images:
            return 0
        found = processor._get_num_multimodal_tokens([list(s) for s in sizes.images])
        return sum(found.num_image_tokens)

    def _packed(self, inputs: Mapping[str, Any]) -> list[Int[Tensor, " feature"]]:
        """For each feature of a picture, the patch it is of all its tiles' patches; -1: a newline."""
        sizes = inputs.get("image_sizes")
        if sizes is None:
            return []
        vision: Any = self.hf.config.vision_config
        side = vision.image_size // vision.patch_size
        # Packing moves and drops positions, never channels; so numbers can be packed in their place.
        tiles = [
            torch.arange(n * side * side, dtype=torch.float64).view(n, side * side, 1)
            for n in self._tiles(sizes)
        ]
        packed, _ = self.hf.pack_image_features(
            tiles,
            sizes,
            vision_feature_select_strategy=self.hf.config.vision_feature_select_strategy,
            image_newline=-torch.ones(1, dtype=torch.float64),
        )
        return [one[:, 0].long() for one in packed]

    def _tiles(self, sizes: Int[Tensor, "picture 2"]) -> list[int]:
        config: Any = self.hf.config
        return [
            image_size_to_num_patches(
                size, config.image_grid_pinpoints, config.vision_config.image_size
            )
            for size in sizes
        ]
