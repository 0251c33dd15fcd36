"""LLaVA-1.5: CLIP or SigLIP tower, two-layer projector, one square picture, any decoder.

The picture is scaled and cropped to the tower's square; the features of its patches, read before the
tower's end, pass the projector and stand in the prompt as they are (arXiv 2310.03744).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from transformers.image_transforms import get_resize_output_image_size

from mmlens.adapter import MediaSizes, Towers
from mmlens.errors import UnsupportedModelError
from mmlens.tokens.places import WHOLE, Box, window
from mmlens_adapters.base import last_layer_read, plain_tower
from mmlens_adapters.squares import Pixels, SquareAdapter


class LlavaAdapter(SquareAdapter):
    """``LlavaForConditionalGeneration`` with a CLIP or SigLIP tower."""

    model_types = ("llava",)
    #: Kinds of vision towers that the adapter knows -> class tokens that they put before the patches.
    class_tokens: ClassVar[Mapping[str, int]] = {"clip_vision_model": 1, "siglip_vision_model": 0}

    def towers(self) -> Towers:
        """The tower's MLPs and the projector's one.

        LLaVA reads hidden states before the tower's end (``vision_feature_layer`` -2), so the layers
        after the last one read cannot influence the output: they are marked as off the path.

        Raises:
            UnsupportedModelError: a tower of another kind.
        """
        kind = self.hf.config.vision_config.model_type
        if kind not in self.class_tokens:
            raise UnsupportedModelError(
                f"The vision tower of this {type(self.hf).__name__} is a {kind!r}; its adapter knows "
                f"{' and '.join(self.class_tokens)}."
            )
        encoder = self.hf.model.vision_tower.encoder
        layers = encoder.layer if hasattr(encoder, "layer") else encoder.layers
        last = last_layer_read(self.hf.config.vision_feature_layer, len(layers))
        projector = self.hf.model.multi_modal_projector
        return Towers(
            {
                "vision": plain_tower(layers, on_path=lambda layer: layer < last),
                "projector": plain_tower([projector], "linear_1", "linear_2"),
            }
        )

    def positions(self, pixels: Pixels, module: str) -> int:
        """The patches, and the class token in the tower, or behind it where it is kept."""
        return self.patches(pixels) + self._classes(module)

    def grid(self, module: str) -> tuple[int, int, int]:
        """The patches, and the class token in the tower, or behind it where it is kept."""
        return *self.patch_grid(), self._classes(module)

    def media_tokens(self, processor: Any, sizes: MediaSizes) -> int | None:
        """The same for every picture, since all are cropped or stretched to one square."""
        if not sizes.images:
            return 0
        images = processor.image_processor
        crop = getattr(images, "crop_size", None) if images.do_center_crop else None
        square = crop or images.size
        if not (square["height"] and square["width"]):
            return None
        patch = processor.patch_size
        patches = (square["height"] // patch) * (square["width"] // patch)
        dropped = processor.vision_feature_select_strategy == "default"
        return len(sizes.images) * (patches + processor.num_additional_image_tokens - dropped)

    def tiles(self, processor: Any, size: tuple[int, int]) -> Sequence[tuple[int, Box]]:
        """The square that is cut out of a picture, or that it is put into."""
        return [(0, _shown(processor, size))]

    def _classes(self, module: str) -> int:
        """Class tokens before the patches of a square in a module."""
        dropped = self.hf.config.vision_feature_select_strategy == "default"
        kind = self.hf.config.vision_config.model_type
        return self.class_tokens[kind] - (module != "vision" and dropped)


def _shown(processor: Any, size: tuple[int, int]) -> Box:
    """What the tower sees of a picture (height, width), in fractions of it."""
    images = processor.image_processor
    padded = getattr(images, "do_pad", False)
    box = squared(size) if padded else WHOLE
    if not images.do_center_crop:
        return box
    height, width = (max(size), max(size)) if padded else size
    if images.do_resize:
        height, width = get_resize_output_image_size(
            np.broadcast_to(np.zeros(1), (height, width, 1)),
            images.size["shortest_edge"],
            default_to_square=False,
            input_data_format="channels_last",
        )
    tall, wide = images.crop_size["height"], images.crop_size["width"]
    crop = window((height, width), ((height - tall) // 2, (width - wide) // 2), (tall, wide))
    return inside(box, crop)


def squared(size: tuple[int, int]) -> Box:
    """A picture (height, width) padded to a square around its middle, in fractions of the picture."""
    side = max(size)
    height, width = size
    return window(size, (-((side - height) // 2), -((side - width) // 2)), (side, side))


def inside(outer: Box, part: Box) -> Box:
    """A part, given in fractions of a box, in the terms of what the box is given in."""
    left, top, right, bottom = outer
    across, down = right - left, bottom - top
    return (
        left + part[0] * across,
        top + part[1] * down,
        left + part[2] * across,
        top + part[3] * down,
    )
