"""LLaVA-1.5: CLIP or SigLIP tower, two-layer projector, one square picture, any decoder.

The picture is scaled and cropped to the tower's square; the features of its patches, read before the
tower's end, pass the projector and stand in the prompt as they are (arXiv 2310.03744).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers.image_transforms import get_resize_output_image_size

from mmlens.adapter import MediaSizes, Towers
from mmlens.errors import UnsupportedModelError
from mmlens.hook_names import LANGUAGE
from mmlens.tokens.places import Box, Places, class_and_patches, window
from mmlens_adapters.base import FamilyAdapter, plain_tower

#: Towers whose layers are ``encoder.layers`` -> tokens they put before the patches (a class token).
CLASS_TOKENS = {"clip_vision_model": 1, "siglip_vision_model": 0}


class LlavaAdapter(FamilyAdapter):
    """``LlavaForConditionalGeneration`` with a CLIP or SigLIP tower."""

    model_types = ("llava",)
    modalities = ("image",)

    def towers(self) -> Towers:
        """The tower's MLPs and the projector's one.

        LLaVA reads hidden states before the tower's end (``vision_feature_layer`` -2), so the layers
        after the last one read cannot influence the output: they are marked as off the path.

        Raises:
            UnsupportedModelError: a tower of another kind.
        """
        kind = self.hf.config.vision_config.model_type
        if kind not in CLASS_TOKENS:
            raise UnsupportedModelError(
                f"The vision tower of this {type(self.hf).__name__} is a {kind!r}; its adapter knows "
                f"{' and '.join(CLASS_TOKENS)}."
            )
        layers = self.hf.model.vision_tower.encoder.layers
        last = last_layer_read(self.hf.config.vision_feature_layer, len(layers))
        projector = self.hf.model.multi_modal_projector
        return Towers(
            {
                "vision": plain_tower(layers, on_path=lambda layer: layer < last),
                "projector": plain_tower([projector], "linear_1", "linear_2"),
            }
        )

    def feature_counts(self, inputs: Mapping[str, Any]) -> dict[str, Int[Tensor, " medium"]]:
        """Features per picture: the patches of its square, and the class token if that is kept."""
        if (encoded := inputs.get("mm_encoder_outputs")) is not None:
            counts = [len(one) for one in encoded["image"].pooler_output]
            return {"image": torch.tensor(counts, dtype=torch.long)}
        pixels = inputs.get("pixel_values")
        if pixels is None:
            return {"image": torch.zeros(0, dtype=torch.long)}
        return {"image": torch.full((len(pixels),), self._positions(pixels, "projector"))}

    def tower_rows(
        self, module: str, inputs: Mapping[str, Any], media_rows: Mapping[str, Sequence[int]]
    ) -> list[Int[Tensor, ...]]:
        """Every position is real: the tower sees a picture's patches, the projector what is read."""
        pixels = inputs["pixel_values"]
        rows = torch.tensor(media_rows["image"], device=pixels.device)
        return [rows[:, None].expand(-1, self._positions(pixels, module))]

    def media_tokens(self, processor: Any, sizes: MediaSizes) -> int | None:
        """The same for every picture, since all are cropped or stretched to one square."""
        if not sizes.images:
            return 0
        images = processor.image_processor
        square = (
            getattr(images, "crop_size", None) if images.do_center_crop else None
        ) or images.size
        if not (square["height"] and square["width"]):
            return None
        patch = processor.patch_size
        patches = (square["height"] // patch) * (square["width"] // patch)
        dropped = processor.vision_feature_select_strategy == "default"
        return len(sizes.images) * (patches + processor.num_additional_image_tokens - dropped)

    def places(
        self,
        module: str,
        processor: Any,
        inputs: Mapping[str, Any],  # noqa: ARG002
        sizes: Sequence[MediaSizes],
    ) -> list[Places] | None:
        """The patches of the square that is cut out of each picture, or that it is put into."""
        vision: Any = self.hf.config.vision_config
        side = vision.image_size // vision.patch_size
        dropped = self.hf.config.vision_feature_select_strategy == "default"
        classes = CLASS_TOKENS[vision.model_type] - (module != "vision" and dropped)
        found = [
            class_and_patches(classes, side, side, _shown(processor, size), medium=number).clipped()
            for row in sizes
            for number, size in enumerate(row.images)
        ]
        return [Places.joined(found)] if found or module == LANGUAGE else []

    def _positions(self, pixels: Tensor, module: str) -> int:
        """Positions of one picture in a tower's activations."""
        vision: Any = self.hf.config.vision_config
        patches = (pixels.shape[-2] // vision.patch_size) * (pixels.shape[-1] // vision.patch_size)
        dropped = self.hf.config.vision_feature_select_strategy == "default"
        return patches + CLASS_TOKENS[vision.model_type] - (module == "projector" and dropped)


def _shown(processor: Any, size: tuple[int, int]) -> Box:
    """What the tower sees of a picture, in fractions of it."""
    images = processor.image_processor
    box = squared(size) if getattr(images, "do_pad", False) else (0.0, 0.0, 1.0, 1.0)
    if not images.do_center_crop:
        return box
    height, width = (max(size), max(size)) if getattr(images, "do_pad", False) else size
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


def last_layer_read(read: int | Sequence[int], layers: int) -> int:
    """How many layers of a tower come before the last hidden state that is read.

    Hidden state 0 is the embedding, so hidden state i is the output of layer i - 1.

    >>> last_layer_read(-2, layers=24), last_layer_read([3, -1], layers=24)
    (23, 24)
    """
    states = [read] if isinstance(read, int) else read
    return max(state if state >= 0 else layers + 1 + state for state in states)
