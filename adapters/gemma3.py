"""Gemma 3: SigLIP tower, pooled and projected by one matrix, windows and images in both directions.

A picture becomes one square (arXiv 2503.19786); the tower's patches are averaged down to a fixed number
of features, normalised, and multiplied by one matrix. In the decoder five of six layers attend within
a window, and a picture's tokens attend to one another in both directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from mmlens.adapter import Media, MediaSizes, Towers
from mmlens.hook_names import LANGUAGE
from mmlens.tokens.places import Places, class_and_patches
from mmlens_adapters.base import FamilyAdapter, plain_tower


class Gemma3Adapter(FamilyAdapter):
    """``Gemma3ForConditionalGeneration``.

    Pan and scan, crops of long pictures beside the whole, is off as in the processor's own default;
    where it is switched on in the processor, every crop is a medium of its own.
    """

    model_types = ("gemma3",)
    modalities = ("image",)

    def towers(self) -> Towers:
        """SigLIP's MLPs, whose end is read; the projector has no non-linearity."""
        return Towers(
            {"vision": plain_tower(self.hf.model.vision_tower.encoder.layers)},
            {"projector": "Gemma 3's projector is one matrix, without a non-linearity"},
        )

    def feature_counts(self, inputs: Mapping[str, Any]) -> dict[str, Int[Tensor, " medium"]]:
        """Features per picture, all alike: what is left of the patches after pooling."""
        pixels = inputs.get("pixel_values")
        if (encoded := inputs.get("mm_encoder_outputs")) is not None:
            pixels = encoded["image"].pooler_output
        projector = self.hf.model.multi_modal_projector
        features = (projector.patches_per_image // projector.kernel_size) ** 2
        return {"image": torch.full((0 if pixels is None else len(pixels),), features)}

    def tower_rows(
        self, module: str, inputs: Mapping[str, Any], media_rows: Mapping[str, Sequence[int]]
    ) -> list[Int[Tensor, ...]]:
        """Every patch is real."""
        assert module == "vision"
        rows = torch.tensor(media_rows["image"], device=inputs["pixel_values"].device)
        patches = self.hf.model.multi_modal_projector.patches_per_image**2
        return [rows[:, None].expand(-1, patches)]

    def places(
        self,
        module: str,
        processor: Any,
        inputs: Mapping[str, Any],  # noqa: ARG002
        sizes: Sequence[MediaSizes],
    ) -> list[Places] | None:
        """The patches of each picture, stretched to a square; a feature averages a square of them.

        None where pan and scan cuts pictures into crops.
        """
        if _pan_and_scan(processor):
            return None
        projector = self.hf.model.multi_modal_projector
        side = projector.patches_per_image
        if module == LANGUAGE:
            side //= projector.kernel_size
        found = [
            class_and_patches(0, side, side, medium=number)
            for row in sizes
            for number in range(len(row.images))
        ]
        return [Places.joined(found)]

    def process(
        self, processor: Any, prompts: Sequence[str], media: Media, side: str
    ) -> dict[str, Any]:
        """See :meth:`Adapter.process`; the processor takes pictures row by row."""
        images = [list(row) for row in media.images]
        return dict(
            processor(
                text=list(prompts),
                images=images if any(images) else None,
                padding=True,
                padding_side=side,
                return_tensors="pt",
            )
        )

    def media_tokens(self, processor: Any, sizes: MediaSizes) -> int | None:
        """See :meth:`Adapter.media_tokens`; the same for every picture, but for pan and scan."""
        if sizes.images and _pan_and_scan(processor):
            return None
        return len(sizes.images) * processor.image_seq_length

    def prompt_tokens(self, processor: Any, prompt: str, sizes: MediaSizes) -> int | None:
        """See :meth:`Adapter.prompt_tokens`.

        The processor puts blank lines around a picture, which the tokenizer joins with line breaks
        that stand there already.
        """
        if self.media_tokens(processor, sizes) is None:
            return None
        written = prompt.replace(processor.image_token, processor.full_image_sequence)
        return len(processor.tokenizer(written)["input_ids"])


def _pan_and_scan(processor: Any) -> bool:
    settings = processor._merge_kwargs(tokenizer_init_kwargs=processor.tokenizer.init_kwargs)
    return bool(settings["images_kwargs"].get("do_pan_and_scan"))
